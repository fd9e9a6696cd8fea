#include "cli/held_signals.h"

#include <unistd.h>

#include <csignal>
#include <cstring>
#include <utility>

#include "train/stop_signal.h"

namespace lighthouse::cli {
namespace {

bool are_held = false;
sigset_t earlier_mask;

void hold_signals(int argc, char** argv, char** /*environment*/) {
  if (argc < 2 || (std::strcmp(argv[1], "train") != 0 && std::strcmp(argv[1], "launch") != 0)) return;
  sigset_t held;
  sigemptyset(&held);
  for (const int signal_number : kStopSignals) sigaddset(&held, signal_number);
  are_held = ::sigprocmask(SIG_BLOCK, &held, &earlier_mask) == 0;
}

/// The loader calls what is listed there before any library's initialization, with the arguments of main().
__attribute__((section(".preinit_array"), used)) void (*before_libraries)(int, char**, char**) = hold_signals;

volatile std::sig_atomic_t speaks_at_end = 0;

void say(const char* text) { static_cast<void>(::write(STDERR_FILENO, text, std::strlen(text)) < 0); }

/// Of functions that a handler may call.
extern "C" void end_at_once(int signal_number) {
  if (speaks_at_end != 0) {
    say("stopped by ");
    say(StopSignals::name(signal_number));
    say(kNothingToSave);
    say("\n");
  }
  ::_exit(0);
}

}  // namespace

void end_at_signals(bool speaks) {
  speaks_at_end = speaks ? 1 : 0;
  handle_stop_signals(end_at_once);
  deliver_held_signals();
}

void deliver_held_signals() {
  if (std::exchange(are_held, false)) ::pthread_sigmask(SIG_SETMASK, &earlier_mask, nullptr);
}

}  // namespace lighthouse::cli
