// What a process inherits and must put in order before it does anything else.
#pragma once

namespace lighthouse::cli {

/// Opens /dev/null in place of each of the descriptors 0, 1 and 2 that is closed, or the next file to be opened would
/// have its number and get what is meant for people; and turns the signals of a reader that has left (SIGPIPE) and of a
/// file that may not grow (SIGXFSZ) into errors of write().
void prepare_process();

}  // namespace lighthouse::cli
