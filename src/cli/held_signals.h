// Signals that come while the libraries of the program are loaded.
#pragma once

namespace lighthouse::cli {

/// `lighthouse train` holds kStopSignals back (train/stop_signal.h) from before the first library is initialized, which
/// takes most of the time of a start; else the system's default would end it without a word. This lets them come: to
/// StopSignals, or to whom they would have come where none exists yet. Of no effect when called again, and in other
/// commands.
void deliver_held_signals();

}  // namespace lighthouse::cli
