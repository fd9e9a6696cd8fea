#include "parallel/side_stream.h"

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace lighthouse {
namespace {

c10::Stream current_stream(c10::Device device) { return c10::impl::VirtualGuardImpl(device.type()).getStream(device); }

void let_wait(const c10::Stream& waiting, const c10::Stream& for_what) {
  c10::Event now(for_what.device_type());
  now.record(for_what);
  now.block(waiting);
}

}  // namespace

SideStream::SideStream(c10::Device device) {
  if (device.is_cpu()) return;
  stream_ = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, /*isHighPriority=*/true);
}

void SideStream::wait_for_current() const { let_wait(*stream_, current_stream(stream_->device())); }

void SideStream::join() const {
  if (stream_) let_wait(current_stream(stream_->device()), *stream_);
}

}  // namespace lighthouse
