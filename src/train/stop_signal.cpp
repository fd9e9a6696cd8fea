#include "train/stop_signal.h"

#include <ctime>
#include <utility>

namespace lighthouse {
namespace {

volatile std::sig_atomic_t received_signal = 0;  // a handler can reach nothing but globals
bool installed = false;

/// When a signal came first.
struct FirstTime {
  volatile std::sig_atomic_t known = 0;
  timespec at{};
};
FirstTime first_interrupt, first_terminate;

/// True when the signal came before, a second ago or more. clock_gettime may be called from a handler.
bool is_another_request(FirstTime& first) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  if (first.known == 0) {
    first.at = now;
    first.known = 1;
    return false;
  }
  const time_t seconds = now.tv_sec - first.at.tv_sec;
  return seconds > 1 || (seconds == 1 && now.tv_nsec >= first.at.tv_nsec);
}

extern "C" void request_stop(int signal_number) {
  if (received_signal == 0) received_signal = signal_number;
  const bool at_once = signal_number == SIGINT    ? is_another_request(first_interrupt)
                       : signal_number == SIGTERM ? is_another_request(first_terminate)
                                                  : false;
  if (!at_once) return;
  std::signal(signal_number, SIG_DFL);
  std::raise(signal_number);
}

/// As the process was started; SIGINT and SIGTERM are heard even so, as shells ignore SIGINT for what runs behind them.
bool stays_ignored(int signal_number, const struct sigaction& earlier) {
  return signal_number != SIGINT && signal_number != SIGTERM && earlier.sa_handler == SIG_IGN;
}

}  // namespace

StopActions handle_stop_signals(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;  // a write that was interrupted goes on
  sigemptyset(&action.sa_mask);
  StopActions earlier{};
  for (size_t i = 0; i < kStopSignals.size(); ++i) {
    ::sigaction(kStopSignals.at(i), nullptr, &earlier.at(i));
    if (!stays_ignored(kStopSignals.at(i), earlier.at(i))) ::sigaction(kStopSignals.at(i), &action, nullptr);
  }
  return earlier;
}

StopSignals::StopSignals() : is_outer_(!std::exchange(installed, true)) {
  if (!is_outer_) return;
  received_signal = 0;
  first_interrupt.known = 0;
  first_terminate.known = 0;
  earlier_ = handle_stop_signals(request_stop);
}

StopSignals::~StopSignals() {
  if (!is_outer_) return;
  installed = false;
  for (size_t i = 0; i < kStopSignals.size(); ++i) ::sigaction(kStopSignals.at(i), &earlier_.at(i), nullptr);
}

int StopSignals::received() { return received_signal; }

const char* StopSignals::name(int signal_number) {
  switch (signal_number) {
    case SIGINT:
      return "SIGINT";
    case SIGHUP:
      return "SIGHUP";
    case SIGUSR1:
      return "SIGUSR1";
    case SIGUSR2:
      return "SIGUSR2";
    case SIGXCPU:
      return "SIGXCPU";
    default:
      return "SIGTERM";
  }
}

}  // namespace lighthouse
