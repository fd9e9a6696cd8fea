#include "cpp/train/write_log.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "cpp/io/temporary_folder.h"

namespace lighthouse {
namespace fs = std::filesystem;

WriteLog::WriteLog(fs::path root) : root_(std::move(root)) {
  read(root_);
  now_ = base_;
}

size_t WriteLog::read(const fs::path& path) {
  const size_t place = base_.size();
  base_.push_back({fs::is_directory(path), "", {}});
  if (!base_[place].is_folder) {
    base_[place].bytes = read_bytes(path);
    return place;
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
    const size_t child = read(entry.path());
    base_[place].names[entry.path().filename()] = child;
  }
  return place;
}

size_t WriteLog::find(const fs::path& path) const {
  size_t node = 0;
  for (const fs::path& name : path.lexically_relative(root_)) {
    if (name == ".") continue;
    const auto found = now_[node].names.find(name);
    if (found == now_[node].names.end()) return kNothing;
    node = found->second;
  }
  return node;
}

void WriteLog::append(Operation operation) {
  apply(operation, Fate::kThere, now_);
  operations_.push_back(std::move(operation));
}

void WriteLog::add(const faults::Change& change) {
  using Kind = faults::Change::Kind;
  if (change.path.lexically_relative(root_).string().starts_with("..")) return;
  const size_t node = find(change.path);
  if (change.kind == Kind::kSynced) return append({Operation::Kind::kSync, node, {}, "", 0});
  if (change.kind == Kind::kWritten) {
    return append({Operation::Kind::kWrite, node, {}, change.bytes, static_cast<size_t>(change.offset)});
  }
  const fs::path parent = change.path.parent_path();
  Operation names{Operation::Kind::kNames, find(parent), {{change.path.filename(), kNothing}}, "", 0};
  if (change.kind == Kind::kRenamed) {
    if (change.to.parent_path() != parent) throw std::logic_error("a rename from folder to folder");
    names.names.emplace_back(change.to.filename(), node);
  }
  if (change.kind == Kind::kCreated || change.kind == Kind::kMadeFolder) {
    if (node != kNothing) return;  // opened, not made
    names.names.front().second = base_.size();
    for (Nodes* nodes : {&base_, &now_}) nodes->push_back({change.kind == Kind::kMadeFolder, "", {}});
  }
  append(std::move(names));
}

std::vector<size_t> WriteLog::not_durable(size_t length) const {
  std::vector<size_t> places;
  for (size_t place = 0; place < length; ++place) {
    if (operations_[place].kind != Operation::Kind::kSync) {
      places.push_back(place);
      continue;
    }
    std::erase_if(places, [&](size_t before) { return operations_[before].node == operations_[place].node; });
  }
  return places;
}

void WriteLog::apply(const Operation& operation, Fate fate, Nodes& nodes) {
  if (fate == Fate::kLost || operation.kind == Operation::Kind::kSync) return;
  Node& node = nodes.at(operation.node);
  if (operation.kind == Operation::Kind::kWrite) {
    const std::string& bytes = operation.bytes;
    const size_t count = fate == Fate::kHalf ? bytes.size() / 2 : bytes.size();
    node.bytes.resize(std::max(node.bytes.size(), operation.offset + count));
    node.bytes.replace(operation.offset, count, fate == Fate::kZeros ? std::string(count, '\0') : bytes, 0, count);
    return;
  }
  for (const auto& [name, target] : operation.names) {
    if (target == kNothing) {
      node.names.erase(name);
    } else {
      node.names[name] = target;
    }
  }
}

void WriteLog::write(const Nodes& nodes, size_t node, const fs::path& path) {
  if (!nodes[node].is_folder) return write_bytes(path, nodes[node].bytes);
  fs::create_directory(path);
  for (const auto& [name, child] : nodes[node].names) write(nodes, child, path / name);
}

void WriteLog::replay(size_t length, const Fates& fates, const fs::path& folder) const {
  Nodes nodes = base_;
  for (size_t place = 0; place < length; ++place) {
    const auto fate = fates.find(place);
    apply(operations_[place], fate == fates.end() ? Fate::kThere : fate->second, nodes);
  }
  write(nodes, 0, folder);
}

std::vector<WriteLog::Fates> fates_of(const std::vector<size_t>& not_durable, int random, std::mt19937_64& source) {
  using Fate = WriteLog::Fate;
  WriteLog::Fates lost;
  for (const size_t place : not_durable) lost[place] = Fate::kLost;
  std::vector<WriteLog::Fates> all = {{}};
  if (not_durable.empty()) return all;
  all.push_back(lost);
  for (const size_t place : not_durable) {
    if (not_durable.size() == 1 || random < 2) break;
    all.push_back(lost);
    all.back()[place] = Fate::kThere;
    all.push_back({{place, Fate::kLost}});
  }
  for (int number = 0; number < random; ++number) {
    all.push_back(lost);
    for (auto& [place, fate] : all.back()) fate = static_cast<Fate>(source() % 4);
  }
  return all;
}

}  // namespace lighthouse
