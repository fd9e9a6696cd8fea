// Questions to which an answer may never come: c10d's store reads from its socket for as long as it takes, also when
// the process that hosts it is stopped, or something else listens there.
#pragma once

#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <utility>

namespace lighthouse {

/// No answer within the time.
class NoAnswer : public std::runtime_error {
 public:
  NoAnswer() : std::runtime_error(kWho) {}
  static constexpr const char* kWho =
      "the store of the ranks does not answer: rank 0, or the launcher that hosts it, is gone or stopped";
};

/// What `question` returns or throws; NoAnswer when that takes longer than `limit`. Its thread is then left behind, so
/// that all that `question` uses must be its own.
template <typename Question>
auto answer_within(std::chrono::milliseconds limit, Question question) -> std::invoke_result_t<Question> {
  auto task = std::make_shared<std::packaged_task<std::invoke_result_t<Question>()>>(std::move(question));
  auto answer = task->get_future();
  std::thread([task] { (*task)(); }).detach();
  if (answer.wait_for(limit) != std::future_status::ready) throw NoAnswer();
  return answer.get();
}

}  // namespace lighthouse
