// States of runs: read or refused with DamagedFile, InvalidArgument (of another run) or ConfigError.
#include "config/schema.h"
#include "io/errors.h"
#include "lighthouse/check.h"
#include "robust/fuzz.h"
#include "train/train_state.h"

/// In the place of that of environment.cpp, which asks torch about this machine.
std::string lighthouse::changes(const Environment& /*before*/, const Environment& /*now*/) { return ""; }

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  static const RunIdentity now{};
  const auto pass_over = [](const std::string&) {};
  try {
    const TrainState state = state_from_json(std::string(fuzz::text_of(data, size)), now, "state.json", pass_over);
    state_to_json(state, now);
  } catch (const DamagedFile&) {
  } catch (const InvalidArgument&) {
  } catch (const ConfigError&) {
  }
  return 0;
}
