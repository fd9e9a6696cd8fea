// What a person sees of a run: messages, and on a terminal a progress bar below them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <utility>

#include "train/schedule.h"

namespace lighthouse {

struct Progress {
  int64_t step = 0;  ///< steps done
  int64_t num_steps = 0;
  Stage stage = Stage::kLighthouse;  ///< of the last step
  std::string attention;             ///< of the stage
  std::optional<double> loss;        ///< smoothed, in nats
  double tokens_per_s = 0;
  double seconds_left = 0;
  std::string ranks;  ///< text_of the last RankLoads; empty: none
};

/// "stage 1 lighthouse 120/400 [====>         ] loss 2.3456 12.3k tokens/s ETA 1:23" with a bar that fills the line to
/// `columns`, and what there is of ranks. Where that does not fit the ranks and then the bar are left out, then one
/// word after another; 0 columns: no bar, no limit.
std::string progress_text(const Progress& progress, size_t columns);

/// Writes to the stream of its owner; with no stream it is silent. Never throws for what cannot be written.
class Console {
 public:
  /// `columns` tells how wide a bar may be now; empty: `out` is no terminal that draws one.
  explicit Console(std::ostream* out, std::function<size_t()> columns = {}) : out_(out), columns_(std::move(columns)) {}
  ~Console() { end_bar(); }
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  void note(const std::string& text);  ///< a line of its own
  void warn(const std::string& text) { note("warning: " + text); }
  /// On a terminal redraws the bar, at most ten times a second; else writes a line every ten seconds. The first and the
  /// last step are always shown. `now`: seconds on a clock that only goes forward.
  void progress(const Progress& progress, double now);
  /// What takes its time between two steps, in the place of the bar or of such a line.
  void between(const std::string& text, double now);
  void end_bar();  ///< what follows begins on a new line

 private:
  bool is_due(double now) const;
  void show(const std::string& text, double now);

  std::ostream* out_;
  std::function<size_t()> columns_;
  bool bar_drawn_ = false;
  std::optional<double> last_shown_;  ///< `now` of that moment
};

}  // namespace lighthouse
