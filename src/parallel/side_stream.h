// Work beside what a device is given in the meantime.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>
#include <c10/core/StreamGuard.h>

#include <optional>

namespace lighthouse {

/// A stream of a device, of high priority: what is hidden behind other work must not queue behind it. On the CPU there
/// is none, and work is done at once.
///
/// Tensors that `work` makes lie in the stream's own memory, which only later work uses again. Tensors from elsewhere
/// that it uses must stay until join().
class SideStream {
 public:
  explicit SideStream(c10::Device device);

  /// What `work` launches comes after all that the current stream was given so far, and after earlier work.
  template <typename Work>
  void run(const Work& work) const {
    if (!stream_) return work();
    wait_for_current();
    const c10::StreamGuard guard(*stream_);
    work();
  }
  /// What the current stream is given from now on comes after all work so far.
  void join() const;

 private:
  void wait_for_current() const;

  std::optional<c10::Stream> stream_;
};

}  // namespace lighthouse
