#include "train/checkpoint_ranks.h"

#include <exception>
#include <stdexcept>
#include <system_error>

#include "lighthouse/check.h"
#include "train/out_of_memory.h"

namespace lighthouse {
namespace {

/// What became of what a rank, or all of them, did.
struct Outcome {
  enum Kind : char { kDone = 'd', kFailed = 'f', kAgain = 'a' } kind;
  int error = 0;  ///< errno of the failure, where it has one
  std::string text;
};

std::string to_text(const Outcome& outcome) {
  return detail::concat(static_cast<char>(outcome.kind), outcome.error, "\n", outcome.text);
}

Outcome to_outcome(const std::string& text) {
  const size_t end = text.find('\n');
  return {static_cast<Outcome::Kind>(text.at(0)), std::stoi(text.substr(1, end - 1)), text.substr(end + 1)};
}

/// `thrown` is what left `body`.
Outcome outcome_of(const std::function<std::string()>& body, std::exception_ptr& thrown) {
  try {
    return {Outcome::kDone, 0, body()};
  } catch (const std::system_error& error) {
    thrown = std::current_exception();
    return {Outcome::kFailed, error.code().value(), error.what()};
  } catch (const std::exception& error) {
    thrown = std::current_exception();
    return {Outcome::kFailed, 0, words_of(error)};
  }
}

/// On rank 0.
Outcome conclusion(const std::vector<Outcome>& ranks, const CheckpointRanks::Conclude& conclude,
                   const std::function<bool(const std::vector<int>&)>& try_again, std::exception_ptr& thrown) {
  std::vector<std::string> texts;
  std::vector<int> errors;
  Outcome end{Outcome::kDone, 0, ""};
  const auto note = [&](const Outcome& outcome, size_t rank) {
    if (outcome.kind != Outcome::kFailed) return;
    errors.push_back(outcome.error);
    if (end.kind == Outcome::kDone)
      end = {outcome.kind, outcome.error, detail::concat("rank ", rank, ": ", outcome.text)};
  };
  for (const Outcome& outcome : ranks) {
    note(outcome, texts.size());
    texts.push_back(outcome.text);
  }
  if (errors.empty()) {
    const Outcome concluded = outcome_of([&] { return conclude(texts); }, thrown);
    note(concluded, 0);
    if (errors.empty()) return concluded;
  }
  bool again = false;
  std::exception_ptr ignored;  // the failure before it says more
  const auto ask = [&] {
    again = try_again && try_again(errors);
    return std::string();
  };
  outcome_of(ask, ignored);
  return again ? Outcome{Outcome::kAgain, 0, ""} : end;
}

}  // namespace

std::string together(const CheckpointRanks& ranks, const std::function<std::string()>& body,
                     const CheckpointRanks::Conclude& conclude,
                     const std::function<bool(const std::vector<int>& errors)>& try_again) {
  for (;;) {
    std::exception_ptr thrown;
    const Outcome own = outcome_of(body, thrown);
    const Outcome end = to_outcome(ranks.agree(to_text(own), [&](const std::vector<std::string>& texts) {
      std::vector<Outcome> outcomes;
      for (const std::string& text : texts) outcomes.push_back(to_outcome(text));
      return to_text(conclusion(outcomes, conclude, try_again, thrown));
    }));
    if (end.kind == Outcome::kAgain) continue;
    if (end.kind == Outcome::kDone) return end.text;
    if (thrown) std::rethrow_exception(thrown);
    throw std::runtime_error(end.text);
  }
}

}  // namespace lighthouse
