// config.json of models of others: read or refused with DamagedFile or InvalidArgument.
#include "config/schema.h"
#include "io/errors.h"
#include "io/json_text.h"
#include "lighthouse/check.h"
#include "model/huggingface_config.h"
#include "robust/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  try {
    RunConfig config;
    config.model = parse_huggingface_config(parse_json(fuzz::text_of(data, size), "config.json"), "config.json");
    validate(config);
  } catch (const DamagedFile&) {
  } catch (const InvalidArgument&) {
  } catch (const ConfigError&) {
  }
  return 0;
}
