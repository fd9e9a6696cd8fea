#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "config/schema.h"

namespace lighthouse {
namespace {

using testing::HasSubstr;

/// A wrong file, override or combination, and what the message must name.
struct WrongInput {
  const char* name;
  std::function<void(RunConfig&)> apply;
  std::vector<std::string> message_parts;
};
void PrintTo(const WrongInput& input, std::ostream* stream) { *stream << input.name; }

std::function<void(RunConfig&)> toml(std::string text) {
  return [text = std::move(text)](RunConfig& config) { apply_toml(config, text, "small.toml"); };
}
std::function<void(RunConfig&)> option(std::string key, std::string value) {
  return [key = std::move(key), value = std::move(value)](RunConfig& config) { apply_override(config, key, value); };
}
std::function<void(RunConfig&)> combination(std::vector<std::pair<std::string, std::string>> overrides) {
  return [overrides = std::move(overrides)](RunConfig& config) {
    RunConfig changed = config;  // each key is right by itself; only validate objects
    ASSERT_NO_THROW(apply_overrides(changed, overrides));
    validate(changed);
  };
}

std::string test_name(const testing::TestParamInfo<WrongInput>& input) { return input.param.name; }

std::string dotted(size_t parts) {
  std::string key = "a";
  for (size_t part = 1; part < parts; ++part) key += ".a";
  return key;
}
std::string spaced_key(size_t parts) {
  std::string key = "'.'";
  for (size_t part = 1; part < parts; ++part) key += "\t. \"\\\"\"";
  return key;
}
std::string nested_tables(size_t depth) {
  std::string begin, end;
  for (size_t i = 0; i < depth; ++i) begin += "{a=", end += "}";
  return begin + "1" + end;
}

class ConfigErrorTest : public testing::TestWithParam<WrongInput> {};

TEST_P(ConfigErrorTest, NamesPlaceValueAndRemedy) {
  RunConfig config;
  try {
    GetParam().apply(config);
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    for (const std::string& part : GetParam().message_parts) EXPECT_THAT(error.what(), HasSubstr(part));
  }
  EXPECT_EQ(config, RunConfig{}) << "changed by a wrong input";
}

const WrongInput kWrongFiles[] = {
    {"misspelt_key",
     toml("[model]\ndim = 64\nnum_head = 4\n"),
     {"small.toml:3: model.num_head: unknown key", "did you mean model.num_heads?"}},
    {"key_of_another_section",
     toml("[training]\n\nlearning_rate = 1e-3\n"),
     {"small.toml:3: training.learning_rate", "did you mean optimizer.learning_rate?"}},
    {"unknown_section", toml("# x\n[modle]\ndim = 64\n"), {"small.toml:2: modle: unknown section", "mean model?"}},
    {"key_without_section", toml("steps = 3\n"), {"small.toml:1: steps: unknown key", "mean training.steps?"}},
    {"section_as_value", toml("model = 3\n"), {"small.toml:1: model = 3", "must be a section, written [model]"}},
    {"section_as_array", toml("[[model]]\ndim = 3\n"), {"small.toml:1: model = ", "written [model]"}},
    {"table_as_value", toml("[model.dim]\nx = 1\n"), {"small.toml:1: model.dim = {...}: must be an integer"}},
    {"text_for_integer",
     toml("[training]\nsteps = \"ten\"\n"),
     {"small.toml:2: training.steps = \"ten\": must be an integer at least 1"}},
    {"float_for_integer", toml("[training]\nsteps = 10.0\n"), {"small.toml:2: training.steps = 10.0", "an integer"}},
    {"boolean_for_integer", toml("[training]\nsteps = true\n"), {"small.toml:2: training.steps = true"}},
    {"integer_for_boolean",
     toml("[model]\ntie_embeddings = 1\n"),
     {"small.toml:2: model.tie_embeddings = 1: must be true or false"}},
    {"integer_for_text", toml("[data]\npath = 1\n"), {"small.toml:2: data.path = 1: must be text"}},
    {"date_for_number", toml("[optimizer]\neps = 1979-05-27\n"), {"small.toml:2: optimizer.eps = 1979-05-27"}},
    {"scalar_for_list",
     toml("[attention]\nfull_attention_layers = 0\n"),
     {"small.toml:2: attention.full_attention_layers = 0: must be a list of integers, each at least 0"}},
    {"mixed_list", toml("[data]\nextensions = [\".h\", 2]\n"), {"small.toml:2: data.extensions", "list of texts"}},
    {"list_element_below_limit", toml("[attention]\ntopk_per_layer = [4, 0]\n"), {"[ 4, 0 ]", "each at least 1"}},
    {"below_limit", toml("[model]\nnum_heads = 0\n"), {"small.toml:2: model.num_heads = 0", "from 1 to 4096"}},
    {"above_limit", toml("[attention]\nnum_levels = 9\n"), {"attention.num_levels = 9", "from 1 to 8"}},
    {"negative", toml("[training]\nseed = -1\n"), {"small.toml:2: training.seed = -1", "at least 0"}},
    {"not_a_power", toml("[attention]\npooling_factor = 3\n"), {"pooling_factor = 3: must be 2, 4, 8 or 16"}},
    {"nan", toml("[optimizer]\nbeta1 = nan\n"), {"small.toml:2: optimizer.beta1 = nan", "at least 0 and below 1"}},
    {"infinite", toml("[optimizer]\nclip_norm = inf\n"), {"optimizer.clip_norm = inf: must be a finite number"}},
    {"excluded_limit", toml("[optimizer]\nlearning_rate = 0\n"), {"optimizer.learning_rate = 0", "above 0"}},
    {"beyond_int64",
     toml("[model]\ndim = 99999999999999999999\n"),
     {"small.toml:2: ", "99999999999999999999", "64 bits"}},
    {"beyond_double", toml("[optimizer]\neps = 1e400\n"), {"small.toml:2: ", "1e400"}},
    {"unknown_choice",
     toml("[attention]\nscorer = \"nrom\"\n"),
     {"small.toml:2: attention.scorer = \"nrom\": must be norm, dilated, gla or random", "did you mean norm?"}},
    {"unknown_preset",
     toml("[model]\npreset = \"llama3-7b\"\n"),
     {"small.toml:2: model.preset = \"llama3-7b\": must be tiny, small, base, paper", "did you mean llama3-"}},
    {"duplicate_key", toml("[model]\ndim = 64\ndim = 32\n"), {"small.toml:3: ", "'dim'", "a key may stand only once"}},
    {"duplicate_section", toml("[model]\n[data]\n[model]\n"), {"small.toml:3: ", "'model'", "only once"}},
    {"unclosed_header", toml("[model\ndim = 64\n"), {"small.toml:1: ", "']'"}},
    {"no_value", toml("[model]\ndim =\n"), {"small.toml:2: "}},
    // What toml++ 3.3.0 takes for unreachable: letters from U+00A1 to U+0499 where a key or a value begins.
    {"letter_for_key", toml("\u00e2 = 1\n"), {"small.toml:1: ", "\u00e2"}},
    {"letter_for_value", toml("[model]\ndim = \u0416\n"), {"small.toml:2: ", "could not determine value type"}},
    {"letter_for_section", toml("[\u00e9]\n"), {"small.toml:1: ", "\u00e9"}},
    {"no_key_in_header", toml("[.model]\n"), {"small.toml:1: "}},
    // What its printing makes of them: the logarithm as an unsigned number.
    {"list_of_numbers", toml("[attention]\ntopk_per_layer = [0.1, -0.5]\n"), {"[ 0.1, -0.5 ]: must be a list"}},
    {"smallest_integer",
     toml("[attention]\ntopk_per_layer = [-9223372036854775808]\n"),
     {"[ -9223372036854775808 ]: must be a list"}},
    {"nested_lists", toml("[model]\ndim = [[1, [2]], {x = 1}, []]\n"), {"dim = [ [ 1, [ 2 ] ], {...}, [] ]: must be"}},
    {"key_in_quotes",
     toml("[model]\n\"\\u001b[31m\\n\" = 1\n"),
     {"small.toml:2: model.\"\\u001b[31m\\u000a\": unknown"}},
    {"no_quotes", toml("[data]\npath = corpus\n"), {"small.toml:2: "}},
    {"two_values", toml("[model]\ndim = 1 2\n"), {"small.toml:2: ", "'2'"}},
    {"invalid_utf8", toml("[data]\npath = \"\xff\xfe\"\n"), {"small.toml:2: ", "utf-8"}},
    // Tables within one another ended the program when they were destroyed.
    {"deep_key", toml("\n" + dotted(520'000) + " = 1\n"), {"small.toml:2: a key of more than 32 parts"}},
    {"deep_header", toml("[" + dotted(500'000) + "]\n"), {"small.toml:1: a key of more than 32 parts"}},
    {"deep_key_of_a_table", toml("[model]\ndim = {" + dotted(33) + " = 1}\n"), {"small.toml:2: a key of more"}},
    {"deep_key_with_spaces", toml(spaced_key(100'000) + " = 1\n"), {"small.toml:1: a key of more than 32 parts"}},
    {"deep_key_behind_strings",
     toml("[data]\npath = \"\"\"a\"\"\"\"\"\nformat = '''b'''''\n\n" + dotted(200'000) + " = 1\n"),
     {"small.toml:5: a key of more than 32 parts"}},
    {"deep_list",
     toml("[model]\ndim = " + std::string(60'000, '[') + "\n"),
     {"small.toml:2: values nested more than 32"}},
    {"deep_table",
     toml("[model]\ndim = " + nested_tables(10'000) + "\n"),
     {"small.toml:2: values nested more than 32"}},
    {"too_many_bytes", toml("# " + std::string(1 << 20, 'x')), {"small.toml:1: has 1048578 bytes", "at most 1048576"}},
    {"zero_byte",
     toml("[data]\npath = \"t.txt\\u0000zz\"\n"),
     {"small.toml:2: data.path = \"t.txt\\u0000zz\": has a zero"}},
    {"zero_byte_in_list", toml("[data]\nextensions = [\".c\", \"\\u0000\"]\n"), {"data.extensions", "has a zero byte"}},
    {"long_value", toml("[model]\ndim = \"" + std::string(5000, 'x') + "\"\n"), {"xxx...: must be an integer"}},
};
INSTANTIATE_TEST_SUITE_P(Files, ConfigErrorTest, testing::ValuesIn(kWrongFiles), test_name);

const WrongInput kWrongOverrides[] = {
    {"misspelt_key", option("model.num_head", "4"), {"--model.num_head: unknown option", "mean --model.num_heads?"}},
    {"no_section", option("steps", "4"), {"--steps: unknown option", "did you mean --training.steps?"}},
    {"no_such_key", option("something.else", "4"), {"--something.else: unknown option"}},
    {"text_for_integer", option("training.steps", "ten"), {"--training.steps ten: must be an integer at least 1"}},
    {"trailing_letters", option("training.steps", "10k"), {"--training.steps 10k: must be an integer"}},
    {"empty_integer", option("training.steps", ""), {"--training.steps \"\": must be an integer"}},
    {"float_for_integer", option("training.steps", "1e3"), {"--training.steps 1e3: must be an integer"}},
    {"beyond_int64", option("training.seed", "9223372036854775808"), {"--training.seed 9223372036854775808"}},
    {"beyond_double", option("optimizer.eps", "1e999"), {"--optimizer.eps 1e999: must be a finite number above 0"}},
    {"nan", option("optimizer.learning_rate", "nan"), {"--optimizer.learning_rate nan", "finite number above 0"}},
    {"boolean", option("logging.tensorboard", "yes"), {"--logging.tensorboard yes: must be true or false"}},
    {"unknown_choice", option("training.precision", "bf61"), {"must be fp32 or bf16; did you mean bf16?"}},
    {"wrong_choice", option("data.packing", "docments"), {"chunks or documents; did you mean documents?"}},
    {"wrong_schedule", option("optimizer.schedule", "cosin"), {"did you mean cosine?"}},
    {"wrong_device", option("training.device", "gpu"), {"must be auto, cpu or cuda; did you mean cpu?"}},
    {"wrong_recompute", option("training.recompute", "ful"), {"none, selective or full; did you mean full?"}},
    {"recompute_is_no_switch", option("training.recompute", "true"), {"must be none, selective or full"}},
    {"wrong_offload", option("training.offload", "host"), {"--training.offload host: must be true or false"}},
    {"wrong_offload_layers", option("training.offload_layers", "all"), {"an integer from 0 to 1024"}},
    {"wrong_deterministic", option("training.deterministic", "1"), {"must be true or false"}},
    {"empty_element", option("attention.full_attention_layers", "0,,1"), {"0,,1", "separated by commas"}},
    {"open_bracket", option("attention.full_attention_layers", "[0"), {"each at least 0, separated by commas"}},
    {"no_list", option("attention.full_attention_layers", "none"), {"0,1,28,29, or [] for none"}},
    {"invalid_utf8", option("data.path", "\xff"), {"--data.path", "not valid UTF-8"}},
};
INSTANTIATE_TEST_SUITE_P(Overrides, ConfigErrorTest, testing::ValuesIn(kWrongOverrides), test_name);

const WrongInput kWrongCombinations[] = {
    {"heads",
     combination({{"model.num_heads", "6"}, {"model.num_kv_heads", "4"}}),
     {"model.num_heads = 6", "multiple of model.num_kv_heads = 4"}},
    {"odd_head_dim", combination({{"model.head_dim", "33"}}), {"model.head_dim = 33", "even"}},
    {"rope_key_without_scaling",
     combination({{"model.rope_factor", "8"}}),
     {"model.rope_factor = 8.0: means nothing with model.rope_scaling = \"none\"", "leave it 1.0"}},
    {"rope_key_of_another_scaling",
     combination({{"model.rope_scaling", "linear"}, {"model.rope_beta_fast", "16"}}),
     {"model.rope_beta_fast = 16.0", "\"linear\"", "leave it 32.0"}},
    {"rope_without_original_length",
     combination({{"model.rope_scaling", "yarn"}, {"model.rope_factor", "8"}}),
     {"model.rope_original_len = 0", "\"yarn\""}},
    {"rope_factors_out_of_order",
     combination(
         {{"model.rope_scaling", "llama3"}, {"model.rope_original_len", "8192"}, {"model.rope_low_freq_factor", "4"}}),
     {"model.rope_high_freq_factor = 4", "more than model.rope_low_freq_factor = 4"}},
    {"layers_without_rope_of_another_family",
     combination({{"model.layers_without_rope", "3"}}),
     {"model.layers_without_rope: must be []", "\"llama\"", "smollm3"}},
    {"layers_without_rope_out_of_range",
     combination({{"model.family", "smollm3"}, {"model.layers_without_rope", "4"}}),
     {"model.layers_without_rope: layer 4", "0 to 3"}},
    {"layer_out_of_range",
     combination({{"attention.full_attention_layers", "0,4"}}),
     {"attention.full_attention_layers: layer 4", "model.num_layers = 4", "0 to 3"}},
    {"span_of_lighthouse", combination({{"attention.span", "64"}}), {"attention.span = 64", "leave it 0"}},
    {"span_of_no_tokens",
     combination({{"attention.method", "short"}}),
     {"attention.span = 0", "from 1 to training.seq_len = 4096", "\"short\""}},
    {"window_beyond_the_sequence",
     combination({{"attention.method", "window"}, {"attention.span", "4097"}}),
     {"attention.span = 4097", "from 1 to training.seq_len = 4096", "\"window\""}},
    {"span_that_does_not_divide",
     combination({{"attention.method", "short"}, {"attention.span", "1000"}}),
     {"attention.span = 1000", "must divide training.seq_len = 4096"}},
    {"dense_layers_of_short_sequences",
     combination({{"attention.method", "short"}, {"attention.span", "512"}, {"attention.full_attention_layers", "0"}}),
     {"attention.full_attention_layers: must be []"}},
    {"window_layer_that_is_dense",
     combination(
         {{"attention.window_layers", "0,1"}, {"attention.full_attention_layers", "1"}, {"attention.span", "64"}}),
     {"attention.window_layers: layer 1", "in one of them"}},
    {"window_layer_that_does_not_exist",
     combination({{"attention.window_layers", "4"}, {"attention.span", "64"}}),
     {"attention.window_layers: layer 4", "0 to 3"}},
    {"window_layers_without_span",
     combination({{"attention.window_layers", "1"}}),
     {"attention.span = 0", "from 1 to training.seq_len = 4096", "attention.window_layers"}},
    {"window_layers_of_a_control",
     combination({{"attention.method", "window"}, {"attention.span", "64"}, {"attention.window_layers", "1"}}),
     {"attention.window_layers: must be []", "\"window\""}},
    {"window_layers_of_ranks",
     combination({{"attention.window_layers", "1"}, {"attention.span", "64"}, {"parallel.context", "3"}}),
     {"parallel.context = 3", "must divide model.num_heads", "attention.window_layers"}},
    {"window_layers_of_ranks_between_key_heads",
     combination({{"attention.window_layers", "1"},
                  {"attention.span", "64"},
                  {"parallel.context", "2"},
                  {"model.num_heads", "6"},
                  {"model.num_kv_heads", "3"}}),
     {"parallel.context = 2", "divide model.num_kv_heads = 3 or be a multiple", "attention.window_layers"}},
    {"layer_twice", combination({{"attention.full_attention_layers", "1,2,1"}}), {"layer 1 is listed twice"}},
    {"topk_count", combination({{"attention.topk_per_layer", "8,8"}}), {"topk_per_layer: has 2", "give 4"}},
    {"lighthouse_steps",
     combination({{"training.steps", "30"}, {"training.lighthouse_steps", "31"}}),
     {"training.lighthouse_steps = 31", "at most training.steps = 30"}},
    {"warmup",
     combination({{"training.steps", "10"}, {"training.lighthouse_steps", "5"}}),
     {"optimizer.warmup_steps = 20", "at most training.steps = 10"}},
    {"decay", combination({{"optimizer.decay_steps", "401"}}), {"optimizer.decay_steps = 401", "training.steps = 400"}},
    {"groups_without_batches",
     combination({{"parallel.data", "2"}}),
     {"parallel.data = 2", "at most training.gradient_accumulation = 1"}},
    {"shared_control",
     combination({{"parallel.context", "2"}, {"attention.scorer", "random"}}),
     {"parallel.context = 2", "\"random\""}},
    {"rope_of_no_model",
     combination({{"training.initial_rope", "changed"}}),
     {"training.initial_rope = \"changed\"", "with training.initial_weights only"}},
    {"offload_without_recompute",
     combination({{"training.offload", "true"}}),
     {"training.offload = true", "needs training.recompute = \"full\"", "not \"none\""}},
    {"offload_with_selective",
     combination({{"training.offload", "true"}, {"training.recompute", "selective"}}),
     {"training.offload = true", "not \"selective\""}},
    {"recompute_layers_without_full",
     combination({{"training.recompute_layers", "2"}, {"training.recompute", "selective"}}),
     {"training.recompute_layers = 2", "needs training.recompute = \"full\", not \"selective\"", "leave it 1"}},
    {"more_recompute_layers_than_layers",
     combination({{"training.recompute_layers", "5"}, {"training.recompute", "full"}}),
     {"training.recompute_layers = 5", "at most model.num_layers = 4"}},
    {"offload_layers_without_offload",
     combination({{"training.offload_layers", "2"}}),
     {"training.offload_layers = 2", "needs training.offload = true", "leave it 0"}},
    {"offload_of_more_layers_than_there_are",
     combination({{"training.offload", "true"}, {"training.offload_layers", "5"}, {"training.recompute", "full"}}),
     {"training.offload_layers = 5", "at most model.num_layers = 4", "0 is all"}},
    {"offload_weights_without_their_moments",
     combination({{"training.offload_weights", "true"}, {"training.precision", "bf16"}}),
     {"training.offload_weights = true", "needs training.offload_optimizer = true"}},
    {"offload_weights_in_fp32",
     combination({{"training.offload_weights", "true"}, {"training.offload_optimizer", "true"}}),
     {"training.offload_weights = true", "needs training.precision = \"bf16\", not \"fp32\""}},
    {"packed_batches",
     combination({{"data.packing", "documents"}, {"training.batch_size", "2"}}),
     {"training.batch_size = 2", "data.packing = \"documents\"", "gradient_accumulation"}},
    {"mixture_and_path",
     combination({{"data.path", "corpus"}, {"data.mixture", "a=1,b=2"}}),
     {"data.mixture: stands in the place of data.path = \"corpus\""}},
    {"small_vocabulary",
     combination({{"data.format", "text"}, {"model.vocab_size", "128"}}),
     {"model.vocab_size = 128", "at least 256"}},
};
INSTANTIATE_TEST_SUITE_P(Combinations, ConfigErrorTest, testing::ValuesIn(kWrongCombinations), test_name);

// Strings and comments may hold what would be too deep outside of them.
TEST(ConfigDepthTest, IsThatOfKeysAndValuesAlone) {
  const std::string many = dotted(100) + std::string(100, '[') + std::string(100, '{');
  RunConfig config;
  apply_toml(config,
             "# " + many + "\n[data] # \" ' " + many + "\npath = \"" + many + "\\\"" + many +
                 "\"\nformat = 'text'\nmixture = ['" + many + "=1', \"\"\"\n" + many + "\"\" \\\"\"\"=2\"\"\"\"]\n" +
                 "\"extensions\" = [ # [\n  \".c\", '''.h''''' ]\n",
             "ours.toml");
  EXPECT_EQ(config.data.path, many + "\"" + many);
  EXPECT_EQ(config.data.extensions, (std::vector<std::string>{".c", ".h''"}));
  EXPECT_EQ(config.data.mixture.size(), 2U);
  std::string rows = "[attention]\ntopk_per_layer = [";
  for (int i = 0; i < 1000; ++i) rows += i % 2 == 0 ? "4," : "\n8,";
  apply_toml(config, rows + "]\n[optimizer]\nlearning_rate = 1.5e-3 # 1.2.3\n", "ours.toml");
  EXPECT_EQ(config.attention.topk_per_layer.size(), 1000U);
}

// Messages had megabytes.
TEST(ConfigErrorText, IsShortWhateverTheNames) {
  const std::string name(400'000, 'x');
  for (const std::string& text :
       {name + " = 1\n", "[" + name + "]\n", "[model]\n" + name + " = 1\n", "[model]\ndim = \"" + name + "\"\n",
        "[model]\n\"" + name + "\" = 1\n\"" + name + "\" = 2\n", "[model]\ndim = " + name + "\n"}) {
    RunConfig config;
    try {
      apply_toml(config, text, "small.toml");
      FAIL() << "accepted";
    } catch (const ConfigError& error) {
      EXPECT_LT(std::string(error.what()).size(), 1000U);
      EXPECT_THAT(error.what(), HasSubstr("small.toml:"));
    }
  }
}

// A configuration that code made is held to the same limits as one that was read.
TEST(ConfigValidateTest, ChecksLimitsToo) {
  RunConfig config;
  config.attention.pooling_factor = 3;
  try {
    validate(config);
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("attention.pooling_factor = 3: must be 2, 4, 8 or 16"));
  }
}

TEST(ConfigFileTest, MissingFileAndFolderAreNamed) {
  const auto folder = std::filesystem::temp_directory_path();
  const auto missing = folder / "lighthouse-no-such-file.toml";
  RunConfig config;
  try {
    apply_toml_file(config, missing);
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr(missing.string()));
    EXPECT_THAT(error.what(), HasSubstr("No such file or directory"));
  }
  try {
    apply_toml_file(config, folder);
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr(folder.string() + ": is a folder"));
  }
}

}  // namespace
}  // namespace lighthouse
