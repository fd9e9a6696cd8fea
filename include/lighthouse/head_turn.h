// Rotary positions as part of gather and its adjoint on CUDA: heads that were not turned yet need no pass of their own.
#pragma once

namespace lighthouse {

/// Of q and k, channels c and c + D/2 of a token turn by an angle: on the way into gather, where the turned token is
/// rounded to its dtype before anything is made of it; back on the way out of gather's adjoint, where the sum is
/// turned, scaled and then rounded. All null: nothing is turned or scaled.
struct HeadTurn {
  const float* cos = nullptr;        ///< [N, D/2], at a multiple of 16 bytes
  const float* sin = nullptr;        ///< [N, D/2], likewise
  const float* row_scale = nullptr;  ///< [B, N]: of dq, dk and dv of a token; the adjoint's alone
};

}  // namespace lighthouse
