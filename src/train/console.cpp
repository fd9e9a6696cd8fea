#include "train/console.h"

#include <algorithm>

#include "io/printable.h"
#include "lighthouse/check.h"
#include "train/text.h"

namespace lighthouse {
namespace {

constexpr const char* kClearLine = "\r\033[K";
constexpr size_t kLeastBar = 4;

std::string draw_bar(const Progress& progress, size_t width) {
  const auto share = static_cast<double>(progress.step) / static_cast<double>(std::max<int64_t>(progress.num_steps, 1));
  const auto filled = static_cast<size_t>(std::clamp(share, 0.0, 1.0) * static_cast<double>(width));
  std::string bar(filled, '=');
  if (filled < width) bar += '>';
  bar.resize(width, ' ');
  return bar;
}

}  // namespace

std::string progress_text(const Progress& progress, size_t columns) {
  const std::string steps = detail::concat(progress.step, "/", progress.num_steps, " ");
  const std::string text =
      detail::concat("stage ", static_cast<int>(progress.stage), " ", progress.attention, " ", steps);
  const std::string loss = detail::concat("loss ", progress.loss ? fixed(*progress.loss, 4) : "-");
  const std::string speed = detail::concat(" ", with_unit(progress.tokens_per_s), " tokens/s");
  const std::string left = " ETA " + duration(progress.seconds_left);
  const std::string rest = loss + speed + left;
  const std::string ranks = progress.ranks.empty() ? "" : " " + progress.ranks;
  for (const std::string& line : {rest + ranks, rest}) {
    const size_t used = text.size() + line.size() + 3;  // two brackets and a space
    if (used + kLeastBar <= columns) return detail::concat(text, "[", draw_bar(progress, columns - used), "] ", line);
  }
  if (columns == 0) return text + rest + ranks;
  for (const std::string& line : {text + rest, text + loss + left, steps + rest, steps + loss + left, steps + loss}) {
    if (line.size() <= columns) return line;
  }
  return steps.substr(0, columns);
}

void Console::note(const std::string& text) {
  if (out_ == nullptr) return;
  *out_ << (bar_drawn_ ? kClearLine : "") << printable(text) << std::endl;
  bar_drawn_ = false;
  last_shown_ = columns_ ? std::nullopt : last_shown_;  // the bar comes back below the message
}

void Console::progress(const Progress& progress, double now) {
  if (out_ == nullptr || !(is_due(now) || progress.step == progress.num_steps)) return;
  show(progress_text(progress, columns_ ? columns_() : 0), now);
}

void Console::between(const std::string& text, double now) {
  if (out_ == nullptr || !is_due(now)) return;
  show(columns_ ? text.substr(0, columns_()) : text, now);
}

bool Console::is_due(double now) const {
  const double pause = columns_ ? 0.1 : 10;  // seconds
  return !last_shown_ || now - *last_shown_ >= pause;
}

void Console::show(const std::string& text, double now) {
  last_shown_ = now;
  bar_drawn_ = static_cast<bool>(columns_);
  if (bar_drawn_) {
    *out_ << kClearLine << text << std::flush;
  } else {
    *out_ << text << std::endl;
  }
}

void Console::end_bar() {
  if (bar_drawn_) *out_ << std::endl;
  bar_drawn_ = false;
}

}  // namespace lighthouse
