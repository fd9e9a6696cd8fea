// Threads that serve the training thread.
#pragma once

#include <functional>
#include <thread>

namespace lighthouse {

/// A thread that no signal interrupts: they go to the thread that trains, which looks for them between steps.
std::thread start_background_thread(std::function<void()> body);

}  // namespace lighthouse
