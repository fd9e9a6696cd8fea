// The tasks of `lighthouse eval`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "eval/evaluation.h"
#include "eval/prompts.h"

namespace lighthouse {

// One function for each task, which measures it and returns what the task's JSON holds; docs/evaluation.md says what
// the fields mean. Each throws InvalidArgument for settings that it cannot work with.
nlohmann::ordered_json measure_loss(Evaluation& evaluation);
nlohmann::ordered_json measure_position(Evaluation& evaluation);
nlohmann::ordered_json measure_context(Evaluation& evaluation);
nlohmann::ordered_json measure_passkey(Evaluation& evaluation);
nlohmann::ordered_json measure_multikey(Evaluation& evaluation);
nlohmann::ordered_json measure_copy(Evaluation& evaluation);

struct Task {
  const char* name;
  const char* help;  ///< half a line
  nlohmann::ordered_json (*measure)(Evaluation& evaluation);
  Prompt (*prompt)(const PromptOptions& options) = nullptr;  ///< of a synthetic task; else null
  int64_t trials = 0;                                        ///< of a synthetic task, by default
};

const std::vector<Task>& all_tasks();
/// Throws InvalidArgument with the nearest name and the list.
const Task& find_task(const std::string& name);

/// Prompt number `trial` of `length` bytes: trials go through the depths in turn.
Prompt make_prompt(const Task& task, const EvalSettings& settings, const Filler& filler, int64_t length, int64_t trial);

}  // namespace lighthouse
