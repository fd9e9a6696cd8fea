#include "train/stop_signal.h"

namespace lighthouse {
namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM};
volatile std::sig_atomic_t received_signal = 0;  // a handler can reach nothing but a global

extern "C" void request_stop(int signal_number) {
  if (received_signal != 0) {
    std::signal(signal_number, SIG_DFL);
    std::raise(signal_number);
  }
  received_signal = signal_number;
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
