#include "train/stop_signal.h"

#include <ctime>

namespace lighthouse {
namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM};
volatile std::sig_atomic_t received_signal = 0;  // a handler can reach nothing but globals
timespec received_at;                            // of the first

/// A second or more since the first signal. clock_gettime may be called from a handler.
bool is_another_request() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const time_t seconds = now.tv_sec - received_at.tv_sec;
  return seconds > 1 || (seconds == 1 && now.tv_nsec >= received_at.tv_nsec);
}

extern "C" void request_stop(int signal_number) {
  if (received_signal == 0) {
    ::clock_gettime(CLOCK_MONOTONIC, &received_at);
    received_signal = signal_number;
  } else if (is_another_request()) {
    std::signal(signal_number, SIG_DFL);
    std::raise(signal_number);
  }
}

}  // namespace

StopSignals::StopSignals() {
  received_signal = 0;
  struct sigaction action {};
  action.sa_handler = request_stop;
  action.sa_flags = SA_RESTART;  // a write that was interrupted goes on
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals.at(i), &action, &earlier_.at(i));
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals.at(i), &earlier_.at(i), nullptr);
}

int StopSignals::received() { return received_signal; }

const char* StopSignals::name(int signal_number) { return signal_number == SIGINT ? "SIGINT" : "SIGTERM"; }

}  // namespace lighthouse
