#include "cli/held_signals.h"

#include <csignal>
#include <cstring>
#include <utility>

#include "train/stop_signal.h"

namespace lighthouse::cli {
namespace {

bool are_held = false;
sigset_t earlier_mask;

void hold_signals_of_train(int argc, char** argv, char** /*environment*/) {
  if (argc < 2 || std::strcmp(argv[1], "train") != 0) return;
  sigset_t held;
  sigemptyset(&held);
  for (const int signal_number : kStopSignals) sigaddset(&held, signal_number);
  are_held = ::sigprocmask(SIG_BLOCK, &held, &earlier_mask) == 0;
}

/// The loader calls what is listed there before any library's initialization, with the arguments of main().
__attribute__((section(".preinit_array"), used)) void (*before_libraries)(int, char**, char**) = hold_signals_of_train;

}  // namespace

void deliver_held_signals() {
  if (std::exchange(are_held, false)) ::pthread_sigmask(SIG_SETMASK, &earlier_mask, nullptr);
}

}  // namespace lighthouse::cli
