// The results of `lighthouse eval` as tables for people.
#pragma once

#include <nlohmann/json.hpp>
#include <ostream>

namespace lighthouse::cli {

/// `report` as the command prints it with --json (docs/evaluation.md).
void print_evaluation(const nlohmann::ordered_json& report, std::ostream& out);

}  // namespace lighthouse::cli
