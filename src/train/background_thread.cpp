#include "train/background_thread.h"

#include <pthread.h>

#include <csignal>
#include <utility>

namespace lighthouse {

std::thread start_background_thread(std::function<void()> body) {
  // A new thread begins with the mask of its parent; so there is no moment at which a signal could reach it.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGXFSZ}) sigdelset(&all, fault);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  try {
    std::thread thread(std::move(body));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread;
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
}

}  // namespace lighthouse
