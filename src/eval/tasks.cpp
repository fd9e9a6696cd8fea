#include "eval/tasks.h"

#include "config/schema.h"
#include "lighthouse/check.h"

namespace lighthouse {

const std::vector<Task>& all_tasks() {
  static const std::vector<Task> tasks = {
      {"loss", "the mean over held-out text", measure_loss},
      {"position", "the loss by position in the sequence", measure_position},
      {"passkey", "a digit hidden in a long prompt", measure_passkey, passkey_prompt, 70},
      {"multikey", "one of several digits, asked for by name", measure_multikey, multikey_prompt, 70},
      {"copy", "a random string met before", measure_copy, copy_prompt, 16},
  };
  return tasks;
}

const Task& find_task(const std::string& name) {
  std::vector<std::string> names;
  std::string list;
  for (const Task& task : all_tasks()) {
    if (task.name == name) return task;
    names.emplace_back(task.name);
    list += (list.empty() ? "" : ", ") + names.back();
  }
  const std::string nearest = nearest_name(name, names);
  LIGHTHOUSE_CHECK(false, "--task ", name, ": unknown", did_you_mean(nearest),
                   nearest.empty() ? "; tasks are " : " Tasks are ", list);
  return all_tasks().front();
}

Prompt make_prompt(const Task& task, const EvalSettings& settings, const Filler& filler, int64_t length,
                   int64_t trial) {
  const double depth = settings.depths[static_cast<size_t>(trial) % settings.depths.size()];
  return task.prompt({length, depth, settings.keys, settings.seed, trial, filler});
}

}  // namespace lighthouse
