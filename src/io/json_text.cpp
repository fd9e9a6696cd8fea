#include "io/json_text.h"

#include <limits>
#include <utility>
#include <vector>

#include "io/errors.h"
#include "io/printable.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

using nlohmann::json;
using TakeMember = std::function<void(const std::string& name, const json& value)>;

/// Makes a value of what the parser reports. The parser's own builder has no limit of depth, and one that is called
/// back takes a time that grows with the square of an object's members.
class Builder : public nlohmann::json_sax<json> {
 public:
  /// With `take` the text is an object, whose members go there, and the limit is that of each of them.
  explicit Builder(const std::string& source, const JsonLimits& limits, const TakeMember* take = nullptr)
      : source_(source), limits_(limits), take_(take) {}

  json& value() { return root_; }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return add(value); }
  bool string(string_t& value) override {
    if (is_left_out()) return true;
    count(kString + value.size());
    return add(std::move(value));
  }
  bool binary(binary_t& /*value*/) override { return false; }  // texts have none
  bool start_object(size_t /*size*/) override { return open(json::value_t::object); }
  bool end_object() override { return close(); }
  bool start_array(size_t /*size*/) override { return open(json::value_t::array); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (left_out_ > 0) return true;
    if (limits_.without != nullptr && name == limits_.without) {
      left_out_ = 1;
      return true;
    }
    if (takes_members()) {
      member_ = &taken_;
      name_ = std::move(name);
      bytes_ = 0;
      return true;
    }
    count(kMember + name.size());
    const auto [place, is_new] = open_.back()->emplace(name, nullptr);
    if (!is_new) throw_damaged(source_, "the name ", quoted(name), " stands twice in one object");
    member_ = &*place;
    return true;
  }

  bool parse_error(size_t /*place*/, const std::string& /*token*/, const json::exception& error) override {
    const std::string what = words_of(error);
    throw_damaged(source_, "not JSON: ", shortened(what));  // which holds all of a token, however long
  }

 private:
  bool takes_members() const { return take_ != nullptr && open_.size() == 1; }

  /// Before that memory is taken, of a member where they are handed over.
  void count(size_t bytes) {
    bytes_ += bytes;
    if (bytes_ <= limits_.bytes) return;
    if (take_ == nullptr) throw_damaged(source_, "its values take more than ", limits_.bytes, " bytes of memory");
    throw_damaged(source_, quoted(name_), " takes more than ", limits_.bytes, " bytes");
  }
  /// Whether the value that comes is one of a member that is not kept, or in one. Counts how deep it is.
  bool is_left_out(int opened = 0) {
    if (left_out_ == 0) return false;
    left_out_ += opened;
    if (left_out_ == 1) left_out_ = 0;  // it was the member's own
    return true;
  }
  json* place(json value) {
    count(kValue);
    if (take_ != nullptr && open_.empty() && !value.is_object()) throw_damaged(source_, "not a JSON object");
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_array()) return &open_.back()->emplace_back(std::move(value));
    return &(*member_ = std::move(value));
  }
  bool add(json value) {
    if (is_left_out()) return true;
    place(std::move(value));
    if (takes_members()) (*take_)(name_, taken_);
    return true;
  }
  bool open(json::value_t type) {
    if (open_.size() + static_cast<size_t>(left_out_) >= kMaxJsonDepth)
      throw_damaged(source_, "nested more than ", kMaxJsonDepth, " deep");
    if (is_left_out(1)) return true;
    count(type == json::value_t::object ? kObject : kArray);
    open_.push_back(place(type));
    return true;
  }
  bool close() {
    if (is_left_out(-1)) return true;
    open_.pop_back();
    if (takes_members()) (*take_)(name_, taken_);
    return true;
  }

  // About what each takes of the heap: a list has room for up to twice its values, and is copied when it grows.
  static constexpr size_t kValue = 3 * sizeof(json), kArray = 32, kObject = 64, kMember = 64, kString = 48;

  const std::string& source_;
  const JsonLimits limits_;
  const TakeMember* take_;
  size_t bytes_ = 0;  ///< of the value, or of the member that is handed over
  int left_out_ = 0;  ///< 1: the next value is that of a member that is not kept; more: so many less 1 are open in it
  json root_, taken_;
  std::string name_;         ///< of taken_
  json* member_ = nullptr;   ///< that the next value is
  std::vector<json*> open_;  ///< arrays and objects that have not ended, each in the one before
};

void parse(std::string_view text, const std::string& source, Builder& builder) {
  // The parser takes a zero byte for the end of the text and would pass over all that follows, and skips a mark.
  if (text.find('\0') != std::string_view::npos) throw_damaged(source, "not JSON: it has a zero byte");
  if (text.starts_with("\xEF\xBB\xBF"))
    throw_damaged(source, "not JSON: it begins with a byte order mark; save it without");
  json::sax_parse(text, &builder);
}

}  // namespace

json parse_json(std::string_view text, const std::string& source, const JsonLimits& limits) {
  Builder builder(source, limits);
  parse(text, source, builder);
  return std::move(builder.value());
}

void read_json_members(std::string_view text, const std::string& source, const TakeMember& take, size_t most) {
  Builder builder(source, {.bytes = most}, &take);
  parse(text, source, builder);
}

std::string words_of(const json::exception& error) {
  const std::string what = error.what();
  const size_t end = what.starts_with("[json.exception.") ? what.find("] ") : std::string::npos;
  return end == std::string::npos ? what : what.substr(end + 2);
}

const json& member(const json& object, const char* name) {
  if (!object.is_object()) throw DamagedFile(excerpt(object) + " is not an object");
  const auto found = object.find(name);
  if (found == object.end()) throw DamagedFile(std::string("no ") + name);
  return *found;
}

int64_t whole_number(const json& value, const char* name) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
    throw DamagedFile(detail::concat(name, " ", excerpt(value), " is not an integer from 0 to 2^63 - 1"));
  }
  return value.get<int64_t>();
}

int64_t whole_member(const json& object, const char* name) { return whole_number(member(object, name), name); }

std::string json_string(const std::string& text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string quoted(const std::string& name) { return json_string(shortened(name)); }

std::string excerpt(const json& value) {
  constexpr size_t kMost = 100;
  const std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  return text.size() <= kMost ? text : text.substr(0, kMost) + "...";
}

}  // namespace lighthouse
