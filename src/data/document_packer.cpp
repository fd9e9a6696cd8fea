#include <algorithm>
#include <array>
#include <mutex>

#include "data/packer.h"
#include "data/shuffle.h"

namespace lighthouse {

namespace {

/// The documents of one epoch in their order.
struct Layout {
  int64_t epoch = 0;
  std::vector<int64_t> documents;  ///< place in the order -> document of the source
  std::vector<int64_t> offsets;    ///< [num_documents + 1] where each begins in the epoch, in tokens
};

class DocumentPacker final : public Packer {
 public:
  DocumentPacker(PackerOptions options, int64_t begin, int64_t end) : options_(std::move(options)) {
    for (int64_t document = begin; document < end; ++document) {
      if (length(document) < 2) continue;
      documents_.push_back(document);
      num_tokens_ += length(document);
    }
  }

  int64_t num_sequences() const override { return num_tokens_ / options_.seq_len; }
  int64_t num_tokens() const override { return num_tokens_; }

  Sequence sequence(int64_t epoch, int64_t position) const override {
    const std::shared_ptr<const Layout> layout = layout_of(options_.seed ? epoch : 0);
    const int64_t begin = position * options_.seq_len;
    const int64_t end = begin + options_.seq_len;
    const auto& offsets = layout->offsets;
    auto place = static_cast<size_t>(std::upper_bound(offsets.begin(), offsets.end(), begin) - offsets.begin() - 1);
    Sequence sequence;
    sequence.cu_seqlens.push_back(0);
    for (; offsets[place] < end; ++place) {
      const int64_t skipped = std::max<int64_t>(begin - offsets[place], 0);
      const int64_t last = std::min(end, offsets[place + 1]) - offsets[place];
      append(layout->documents[place], skipped, last, sequence);
    }
    return sequence;
  }

 private:
  int64_t length(int64_t document) const {
    const auto& offsets = options_.source->document_offsets();
    return offsets[static_cast<size_t>(document) + 1] - offsets[static_cast<size_t>(document)];
  }

  /// Adds tokens [begin, end) of a document as one document of the sequence.
  void append(int64_t document, int64_t begin, int64_t end, Sequence& sequence) const {
    std::vector<int64_t> tokens(static_cast<size_t>(std::min(end + 1, length(document)) - begin));
    const int64_t first = options_.source->document_offsets()[static_cast<size_t>(document)] + begin;
    read_checked(*options_.source, first, options_.vocab_size, tokens);
    sequence.inputs.insert(sequence.inputs.end(), tokens.begin(), tokens.begin() + (end - begin));
    sequence.targets.insert(sequence.targets.end(), tokens.begin() + 1, tokens.end());
    if (end == length(document)) sequence.targets.push_back(kIgnoredTarget);
    sequence.cu_seqlens.push_back(static_cast<int64_t>(sequence.inputs.size()));
  }

  Layout make_layout(int64_t epoch) const {
    const auto num_documents = static_cast<int64_t>(documents_.size());
    Layout layout{epoch, {}, {0}};
    layout.documents.reserve(documents_.size());
    layout.offsets.reserve(documents_.size() + 1);
    const Shuffle shuffle(num_documents, options_.seed.value_or(0), epoch);
    for (int64_t place = 0; place < num_documents; ++place) {
      const int64_t document = documents_[static_cast<size_t>(options_.seed ? shuffle(place) : place)];
      layout.documents.push_back(document);
      layout.offsets.push_back(layout.offsets.back() + length(document));
    }
    return layout;
  }

  /// Two epochs are kept: around the end of one, threads ask for both.
  std::shared_ptr<const Layout> layout_of(int64_t epoch) const {
    const std::scoped_lock lock(mutex_);
    auto& kept = layouts_[static_cast<size_t>(epoch % 2)];
    if (!kept || kept->epoch != epoch) kept = std::make_shared<const Layout>(make_layout(epoch));
    return kept;
  }

  PackerOptions options_;
  std::vector<int64_t> documents_;  ///< of the source, in its order, without those of a single token
  int64_t num_tokens_ = 0;
  mutable std::mutex mutex_;
  mutable std::array<std::shared_ptr<const Layout>, 2> layouts_;
};

}  // namespace

std::unique_ptr<Packer> make_document_packer(PackerOptions options, int64_t begin, int64_t end) {
  return std::make_unique<DocumentPacker>(std::move(options), begin, end);
}

}  // namespace lighthouse
