// What `lighthouse audit` prints.
#pragma once

#include <iosfwd>
#include <nlohmann/json.hpp>

#include "audit/audit.h"

namespace lighthouse::cli {

/// The object that --json prints, but for what names the model: "selection_held" and "selection_free". A value that is
/// not finite is null.
nlohmann::ordered_json audit_json(const Audit& audit);

/// The same as tables for people.
void print_audit(const Audit& audit, std::ostream& out);

}  // namespace lighthouse::cli
