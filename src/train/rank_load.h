// Which of the ranks of a run are slow, and which are full.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace lighthouse {

/// What a step costs one rank.
struct RankLoad {
  double seconds = 0;                  ///< until its gradients are there; 0: not measured
  std::optional<int64_t> peak_memory;  ///< bytes allocated on its device at most, in this start; nullopt on the CPU
};

/// The ranks that stand out, of a step that was measured; of equals the first.
struct RankLoads {
  struct Of : RankLoad {
    int64_t rank = 0;
  };
  Of fastest, slowest;
  std::optional<Of> fullest;  ///< that has the most memory, where it is known
};

/// `loads`: of each rank. nullopt where there is one rank, or the step was not measured.
std::optional<RankLoads> standing_out(const std::vector<RankLoad>& loads);

/// Keys fastest, slowest, fullest, each an object of rank, seconds, and peak_memory where it is known.
nlohmann::ordered_json to_json(const RankLoads& loads);

/// "fastest rank 0 0.91 s 61.2GB, slowest rank 3 1.31 s 63.0GB"
std::string text_of(const RankLoads& loads);

}  // namespace lighthouse
