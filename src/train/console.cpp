#include "train/console.h"

#include <algorithm>

#include "train/text.h"

namespace lighthouse {
namespace {

constexpr const char* kClearLine = "\r\033[K";
constexpr int64_t kBarWidth = 16;  // the whole line then fits 80 columns

std::string draw_bar(int64_t step, int64_t num_steps) {
  const auto share = static_cast<double>(step) / static_cast<double>(std::max<int64_t>(num_steps, 1));
  const auto filled = std::clamp<int64_t>(static_cast<int64_t>(share * kBarWidth), 0, kBarWidth);
  std::string bar(static_cast<size_t>(filled), '=');
  if (filled < kBarWidth) bar += '>' + std::string(static_cast<size_t>(kBarWidth - filled - 1), ' ');
  return "[" + bar + "] ";
}

}  // namespace

std::string progress_text(const Progress& progress, bool bar) {
  const std::string stage =
      "stage " + std::to_string(static_cast<int>(progress.stage)) + " " + stage_name(progress.stage);
  const std::string steps = std::to_string(progress.step) + "/" + std::to_string(progress.num_steps);
  return stage + " " + steps + " " + (bar ? draw_bar(progress.step, progress.num_steps) : "") + "loss " +
         (progress.loss ? fixed(*progress.loss, 4) : "-") + " " + with_unit(progress.tokens_per_s) + " tokens/s ETA " +
         duration(progress.seconds_left);
}

void Console::note(const std::string& text) {
  if (out_ == nullptr) return;
  *out_ << (bar_drawn_ ? kClearLine : "") << text << std::endl;
  bar_drawn_ = false;
  last_shown_ = terminal_ ? std::nullopt : last_shown_;  // the bar comes back below the message
}

void Console::progress(const Progress& progress, double now) {
  if (out_ == nullptr) return;
  const double pause = terminal_ ? 0.1 : 10;  // seconds
  const bool due = !last_shown_ || now - *last_shown_ >= pause || progress.step == progress.num_steps;
  if (!due) return;
  last_shown_ = now;
  if (terminal_) {
    *out_ << kClearLine << progress_text(progress, true) << std::flush;
    bar_drawn_ = true;
  } else {
    *out_ << progress_text(progress, false) << std::endl;
  }
}

void Console::end_bar() {
  if (bar_drawn_) *out_ << std::endl;
  bar_drawn_ = false;
}

}  // namespace lighthouse
