// Signals that come while the libraries of the program are loaded.
#pragma once

namespace lighthouse::cli {

/// `lighthouse train` and `launch` hold kStopSignals back (train/stop_signal.h) from before the first library is
/// initialized, which takes most of the time of a start; else the system's default would end them without a word. This
/// lets them come: to StopSignals, or to whom they would have come where none exists yet. Of no effect when called
/// again, and in other commands.
void deliver_held_signals();

/// Lets them come too, and one of them end the process at once, with exit code 0, until StopSignals takes them: before
/// a run is opened, while other ranks are waited for, nothing can be lost. `speaks`: whether this rank says so.
void end_at_signals(bool speaks);

}  // namespace lighthouse::cli
