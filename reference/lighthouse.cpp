#include "reference/lighthouse.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace lighthouse::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

int64_t rounded_up(int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }
int64_t power(int64_t base, int64_t exponent) { return exponent == 0 ? 1 : base * power(base, exponent - 1); }

// ---- Documents ------------------------------------------------------------------------------------------------------

std::vector<int64_t> bounds_of(const Sequence& sequence) {
  return sequence.cu_seqlens.empty() ? std::vector<int64_t>{0, sequence.seq_len} : sequence.cu_seqlens;
}

int64_t num_coarse(int64_t seq_len, const SelectionConfig& config) {
  return rounded_up(seq_len, power(config.pooling_factor, config.num_levels - 1));
}

/// Entries of the padded levels 0 ... num_levels - 1 of one document.
int64_t num_entries(int64_t seq_len, const SelectionConfig& config, int64_t num_levels) {
  int64_t entries = 0;
  for (int64_t level = 0; level < num_levels; ++level) {
    entries += num_coarse(seq_len, config) * power(config.pooling_factor, config.num_levels - 1 - level);
  }
  return entries;
}

/// What a flat entry stands for: its window, in tokens of the whole row and not cut, and where its document ends.
struct Window {
  size_t document;
  int64_t begin, end, document_end;

  int64_t length() const { return end - begin; }
  int64_t cut_end() const { return std::min(end, document_end); }
  /// The tokens that its row is added to.
  int64_t scatter_begin() const { return end - 1; }
  int64_t scatter_end() const { return std::min(end - 1 + length(), document_end); }
};

Window window_of(int64_t flat, const Sequence& sequence) {
  const std::vector<int64_t> bounds = bounds_of(sequence);
  for (size_t document = 0; document + 1 < bounds.size(); ++document) {
    const int64_t seq_len = bounds[document + 1] - bounds[document];
    for (int64_t level = 0; level < sequence.config.num_levels; ++level) {
      const int64_t window = power(sequence.config.pooling_factor, level);
      const int64_t entries = num_coarse(seq_len, sequence.config) *
                              power(sequence.config.pooling_factor, sequence.config.num_levels - 1 - level);
      if (flat < entries) {
        const int64_t begin = bounds[document] + flat * window;
        return {document, begin, begin + window, bounds[document + 1]};
      }
      flat -= entries;
    }
  }
  throw std::out_of_range("reference: no such entry");
}

// ---- Causal attention over a list of positions --------------------------------------------------------------------

double dot(const double* a, const double* b, int64_t channels) {
  double sum = 0;
  for (int64_t c = 0; c < channels; ++c) sum += a[c] * b[c];
  return sum;
}
void add(double* target, double weight, const double* source, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) target[c] += weight * source[c];
}

/// One head of one batch; q, k, v, o share positions.
struct Head {
  int64_t batch, head, kv_head;
};

/// Softmax of the logits of query number i of the list over those up to it.
std::vector<double> probabilities(const Tensor& q, const Tensor& k, const Head& at, const std::vector<int64_t>& list,
                                  size_t i, double scale) {
  std::vector<double> p(i + 1);
  const double* query = q.at(at.batch, list[i], at.head);
  for (size_t t = 0; t <= i; ++t) p[t] = scale * dot(query, k.at(at.batch, list[t], at.kv_head), q.channels);
  const double largest = *std::max_element(p.begin(), p.end());
  double sum = 0;
  for (double& x : p) sum += x = std::exp(x - largest);
  for (double& x : p) x /= sum;
  return p;
}

void attend(const Tensor& q, const Tensor& k, const Tensor& v, const Head& at, const std::vector<int64_t>& list,
            double scale, Tensor& o) {
  for (size_t i = 0; i < list.size(); ++i) {
    const std::vector<double> p = probabilities(q, k, at, list, i, scale);
    double* out = o.at(at.batch, list[i], at.head);
    for (size_t t = 0; t <= i; ++t) add(out, p[t], v.at(at.batch, list[t], at.kv_head), v.channels);
  }
}

/// With P the probabilities: dV = P^T dO, dP = dO V^T, dlogits = P (dP - rowsum(P dP)).
void attend_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Head& at,
                     const std::vector<int64_t>& list, double scale, const Tensor& dout, Gradients& gradients) {
  for (size_t i = 0; i < list.size(); ++i) {
    const std::vector<double> p = probabilities(q, k, at, list, i, scale);
    const double* grad = dout.at(at.batch, list[i], at.head);
    std::vector<double> dp(i + 1);
    for (size_t t = 0; t <= i; ++t) dp[t] = dot(grad, v.at(at.batch, list[t], at.kv_head), v.channels);
    const double mean = dot(p.data(), dp.data(), static_cast<int64_t>(i) + 1);
    for (size_t t = 0; t <= i; ++t) {
      const double dlogit = scale * p[t] * (dp[t] - mean);
      add(gradients.dq.at(at.batch, list[i], at.head), dlogit, k.at(at.batch, list[t], at.kv_head), q.channels);
      add(gradients.dk.at(at.batch, list[t], at.kv_head), dlogit, q.at(at.batch, list[i], at.head), q.channels);
      add(gradients.dv.at(at.batch, list[t], at.kv_head), p[t], grad, v.channels);
    }
  }
}

// ---- (ii) Scores ----------------------------------------------------------------------------------------------------

Tensor with_heads(const Tensor& x, int64_t num_heads) {
  Tensor repeated(x.batch, x.length, num_heads, x.channels);
  for (int64_t b = 0; b < x.batch; ++b) {
    for (int64_t token = 0; token < x.length; ++token) {
      for (int64_t head = 0; head < num_heads; ++head) {
        add(repeated.at(b, token, head), 1, x.at(b, token, head * x.heads / num_heads), x.channels);
      }
    }
  }
  return repeated;
}

/// Norms of all tokens, the largest of each group of heads; a NaN counts as -infinity unless there is nothing else.
Tensor group_norms(const Tensor& x, int64_t num_groups) {
  Tensor norms(x.batch, x.length, num_groups, 1);
  std::fill(norms.values.begin(), norms.values.end(), std::nan(""));
  for (int64_t b = 0; b < x.batch; ++b) {
    for (int64_t token = 0; token < x.length; ++token) {
      for (int64_t head = 0; head < x.heads; ++head) {
        const double* channels = x.at(b, token, head);
        double& largest = *norms.at(b, token, head * num_groups / x.heads);
        largest = std::fmax(largest, std::sqrt(dot(channels, channels, x.channels)));
      }
    }
  }
  return norms;
}

/// The tokens of every residue class of every document.
std::vector<std::vector<int64_t>> residue_classes(const Sequence& sequence, int64_t dilation) {
  std::vector<std::vector<int64_t>> classes;
  const std::vector<int64_t> bounds = bounds_of(sequence);
  for (size_t document = 0; document + 1 < bounds.size(); ++document) {
    for (int64_t first = bounds[document]; first < std::min(bounds[document] + dilation, bounds[document + 1]);
         ++first) {
      classes.emplace_back();
      for (int64_t token = first; token < bounds[document + 1]; token += dilation) classes.back().push_back(token);
    }
  }
  return classes;
}

/// Calls mix(q, k, v, head, tokens, output) on every head and residue class for both roles of q and k.
template <typename Mix>
Scores mixed_scores(const Tensor& q, const Tensor& k, const Tensor& v, int64_t dilation, const Sequence& sequence,
                    const Mix& mix) {
  const Tensor keys = with_heads(k, q.heads);
  const Tensor values = with_heads(v, q.heads);
  Tensor o_qk(q.batch, q.length, q.heads, q.channels);
  Tensor o_kq = o_qk;
  for (const std::vector<int64_t>& tokens : residue_classes(sequence, dilation)) {
    for (int64_t b = 0; b < q.batch; ++b) {
      for (int64_t head = 0; head < q.heads; ++head) {
        mix(q, keys, values, Head{b, head, head}, tokens, o_qk);
        mix(keys, q, values, Head{b, head, head}, tokens, o_kq);
      }
    }
  }
  return {group_norms(o_qk, k.heads), group_norms(o_kq, k.heads)};
}

// ---- (iii) Cascade --------------------------------------------------------------------------------------------------

struct Entry {
  int64_t level, index;
};

/// The scores of one (batch, KV head) of one document, coarser levels included.
struct HeadScores {
  const Scores& scores;
  int64_t batch, kv_head, seq_len;
  const SelectionConfig& config;

  double over_window(const Tensor& level_0, const Entry& entry) const {
    const int64_t window = power(config.pooling_factor, entry.level);
    double largest = -kInfinity;
    for (int64_t token = entry.index * window; token < std::min((entry.index + 1) * window, seq_len); ++token) {
      const double score = *level_0.at(batch, token, kv_head);
      if (!std::isnan(score)) largest = std::max(largest, score);
    }
    return largest;
  }
  double s_qk(const Entry& entry) const {
    return config.cover_prefix && entry.index == 0 ? kInfinity : over_window(scores.qk, entry);
  }
  double s_kq(const Entry& entry) const { return over_window(scores.kq, entry); }
};

/// Moves the `count` entries with the highest score from `entries` to the result; ties go to the lower index. Both stay
/// sorted by index.
template <typename Score>
std::vector<Entry> take_highest(std::vector<Entry>& entries, int64_t count, const Score& score) {
  std::vector<std::pair<double, Entry>> ranked;
  for (const Entry& entry : entries) ranked.emplace_back(score(entry), entry);
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<Entry> taken;
  entries.clear();
  for (const auto& [unused, entry] : ranked) {
    (static_cast<int64_t>(taken.size()) < count ? taken : entries).push_back(entry);
  }
  const auto by_index = [](const Entry& a, const Entry& b) { return a.index < b.index; };
  std::sort(entries.begin(), entries.end(), by_index);
  std::sort(taken.begin(), taken.end(), by_index);
  return taken;
}

/// Emits the coarsest entries [begin, end) and all that is selected under them.
void select_tile(int64_t begin, int64_t end, int64_t budget, const HeadScores& scores, std::vector<Entry>& emitted) {
  std::vector<Entry> candidates;
  for (int64_t index = begin; index < end; ++index) candidates.push_back({scores.config.num_levels - 1, index});
  for (int64_t level = scores.config.num_levels - 1; level >= 1; --level) {
    emitted.insert(emitted.end(), candidates.begin(), candidates.end());
    std::vector<Entry> expanded =
        take_highest(candidates, rounded_up(budget, 2), [&](const Entry& entry) { return scores.s_qk(entry); });
    const std::vector<Entry> by_kq =
        take_highest(candidates, budget / 2, [&](const Entry& entry) { return scores.s_kq(entry); });
    expanded.insert(expanded.end(), by_kq.begin(), by_kq.end());
    candidates.clear();
    for (const Entry& parent : expanded) {
      for (int64_t child = 0; child < scores.config.pooling_factor; ++child) {
        candidates.push_back({level - 1, parent.index * scores.config.pooling_factor + child});
      }
    }
    std::sort(candidates.begin(), candidates.end(), [](const Entry& a, const Entry& b) { return a.index < b.index; });
  }
  emitted.insert(emitted.end(), candidates.begin(), candidates.end());
}

/// Section (iv): by the end of the window, finer levels first.
void sort_by_window_end(std::vector<Entry>& entries, int64_t pooling_factor) {
  std::sort(entries.begin(), entries.end(), [&](const Entry& a, const Entry& b) {
    const int64_t a_end = (a.index + 1) * power(pooling_factor, a.level);
    const int64_t b_end = (b.index + 1) * power(pooling_factor, b.level);
    return a_end != b_end ? a_end < b_end : a.level < b.level;
  });
}

/// A sequence that would not get shorter is attended to in full.
std::vector<int64_t> every_token(int64_t seq_len) {
  std::vector<int64_t> flat(static_cast<size_t>(seq_len));
  std::iota(flat.begin(), flat.end(), 0);
  return flat;
}

/// The flat entries of one (batch, KV head) of a sequence that is one document, in gathered order.
std::vector<int64_t> select_head(const HeadScores& scores) {
  const SelectionConfig& config = scores.config;
  const int64_t coarse = num_coarse(scores.seq_len, config);
  const int64_t tiles = rounded_up(config.topk, config.tile_topk);
  std::vector<Entry> entries;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t budget = (tile + 1) * config.topk / tiles - tile * config.topk / tiles;
    select_tile(tile * coarse / tiles, (tile + 1) * coarse / tiles, budget, scores, entries);
  }
  sort_by_window_end(entries, config.pooling_factor);
  if (static_cast<int64_t>(entries.size()) >= scores.seq_len) return every_token(scores.seq_len);
  std::vector<int64_t> flat;
  for (const Entry& entry : entries) flat.push_back(num_entries(scores.seq_len, config, entry.level) + entry.index);
  return flat;
}

Tensor slice(const Tensor& x, int64_t begin, int64_t end) {
  Tensor part(x.batch, end - begin, x.heads, x.channels);
  for (int64_t b = 0; b < x.batch; ++b) {
    std::copy_n(x.at(b, begin, 0), (end - begin) * x.heads * x.channels, part.at(b, 0, 0));
  }
  return part;
}

Selection select_document(const Scores& scores, const SelectionConfig& config) {
  const Tensor& shape = scores.qk;
  Selection selection{shape.batch, shape.heads, 0, {}};
  for (int64_t b = 0; b < shape.batch; ++b) {
    for (int64_t kv_head = 0; kv_head < shape.heads; ++kv_head) {
      const std::vector<int64_t> flat = select_head({scores, b, kv_head, shape.length, config});
      selection.rows = static_cast<int64_t>(flat.size());
      selection.entries.insert(selection.entries.end(), flat.begin(), flat.end());
    }
  }
  return selection;
}

/// "Packed documents": every document is a sequence of its own with its share of the budget.
Selection select_documents(const Scores& scores, const Sequence& sequence) {
  const SelectionConfig& config = sequence.config;
  const int64_t tiles = rounded_up(config.topk, config.tile_topk);
  const int64_t coarse = num_coarse(sequence.seq_len, config);
  Selection packed{1, scores.qk.heads, 0, {}};
  std::vector<std::vector<int64_t>> by_head(packed.kv_heads);
  int64_t shift = 0;
  for (size_t document = 0; document + 1 < sequence.cu_seqlens.size(); ++document) {
    const int64_t begin = sequence.cu_seqlens[document];
    const int64_t end = sequence.cu_seqlens[document + 1];
    if (begin == end) continue;
    SelectionConfig share = config;
    share.topk = rounded_up(num_coarse(end - begin, config) * tiles, coarse) * config.topk / tiles;
    const Selection alone =
        select({slice(scores.qk, begin, end), slice(scores.kq, begin, end)}, {end - begin, share, {}});
    for (int64_t kv_head = 0; kv_head < alone.kv_heads; ++kv_head) {
      for (int64_t row = 0; row < alone.rows; ++row) by_head[kv_head].push_back(shift + alone.at(0, kv_head, row));
    }
    shift += num_entries(end - begin, config, config.num_levels);
    packed.rows += alone.rows;
  }
  for (const auto& entries : by_head) packed.entries.insert(packed.entries.end(), entries.begin(), entries.end());
  return packed;
}

/// Calls visit(b, head, row, window) for every row that `num_heads` heads gather.
template <typename Visit>
void for_each_row(const Selection& selection, int64_t num_heads, const Sequence& sequence, const Visit& visit) {
  for (int64_t b = 0; b < selection.batch; ++b) {
    for (int64_t head = 0; head < num_heads; ++head) {
      for (int64_t row = 0; row < selection.rows; ++row) {
        visit(b, head, row, window_of(selection.at(b, head * selection.kv_heads / num_heads, row), sequence));
      }
    }
  }
}

/// The rows of every document, the same for all heads.
std::vector<std::vector<int64_t>> rows_of_documents(const Selection& selection, const Sequence& sequence) {
  std::vector<std::vector<int64_t>> rows(bounds_of(sequence).size() - 1);
  for (int64_t row = 0; row < selection.rows; ++row) {
    rows[window_of(selection.at(0, 0, row), sequence).document].push_back(row);
  }
  return rows;
}

double scale_of(double softmax_scale, const Tensor& q) {
  return softmax_scale != 0 ? softmax_scale : 1 / std::sqrt(static_cast<double>(q.channels));
}

}  // namespace

Scores norm_scores(const Tensor& q, const Tensor& k) { return {group_norms(q, k.heads), group_norms(k, k.heads)}; }

Scores dilated_scores(const Tensor& q, const Tensor& k, const Tensor& v, int64_t dilation, const Sequence& sequence) {
  return mixed_scores(q, k, v, dilation, sequence,
                      [](const Tensor& query, const Tensor& key, const Tensor& value, const Head& at,
                         const std::vector<int64_t>& tokens,
                         Tensor& o) { attend(query, key, value, at, tokens, scale_of(0, query), o); });
}

Scores gla_scores(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& gate, int64_t dilation,
                  const Sequence& sequence) {
  const auto mix = [&](const Tensor& query, const Tensor& key, const Tensor& value, const Head& at,
                       const std::vector<int64_t>& tokens, Tensor& o) {
    const int64_t channels = query.channels;
    std::vector<double> state(static_cast<size_t>(channels * channels));  // by key and value channel
    for (const int64_t token : tokens) {
      const double decay = std::exp(*gate.at(at.batch, token, at.head));
      for (int64_t i = 0; i < channels; ++i) {
        double* state_row = state.data() + i * channels;
        for (int64_t c = 0; c < channels; ++c) state_row[c] *= decay;
        add(state_row, key.at(at.batch, token, at.head)[i], value.at(at.batch, token, at.head), channels);
        add(o.at(at.batch, token, at.head), query.at(at.batch, token, at.head)[i] * scale_of(0, query), state_row,
            channels);
      }
    }
  };
  return mixed_scores(q, k, v, dilation, sequence, mix);
}

Selection select(const Scores& scores, const Sequence& sequence) {
  return sequence.cu_seqlens.empty() ? select_document(scores, sequence.config) : select_documents(scores, sequence);
}

Tensor gather(const Tensor& x, const Selection& selection, const Sequence& sequence) {
  Tensor rows(x.batch, selection.rows, x.heads, x.channels);
  for_each_row(selection, x.heads, sequence, [&](int64_t b, int64_t head, int64_t row, const Window& window) {
    double* mean = rows.at(b, row, head);
    for (int64_t token = window.begin; token < window.cut_end(); ++token) {
      add(mean, 1, x.at(b, token, head), x.channels);
    }
    for (int64_t c = 0; c < x.channels; ++c) mean[c] /= static_cast<double>(window.length());
  });
  return rows;
}

Tensor gather_backward(const Tensor& dx_rows, const Selection& selection, const Sequence& sequence) {
  Tensor dx(dx_rows.batch, sequence.seq_len, dx_rows.heads, dx_rows.channels);
  for_each_row(selection, dx.heads, sequence, [&](int64_t b, int64_t head, int64_t row, const Window& window) {
    for (int64_t token = window.begin; token < window.cut_end(); ++token) {
      add(dx.at(b, token, head), 1 / static_cast<double>(window.length()), dx_rows.at(b, row, head), dx.channels);
    }
  });
  return dx;
}

Tensor scatter(const Tensor& rows, const Selection& selection, const Sequence& sequence) {
  Tensor out(rows.batch, sequence.seq_len, rows.heads, rows.channels);
  for_each_row(selection, out.heads, sequence, [&](int64_t b, int64_t head, int64_t row, const Window& window) {
    for (int64_t token = window.scatter_begin(); token < window.scatter_end(); ++token) {
      add(out.at(b, token, head), 1, rows.at(b, row, head), out.channels);
    }
  });
  return out;
}

Tensor scatter_backward(const Tensor& dout, const Selection& selection, const Sequence& sequence) {
  Tensor drows(dout.batch, selection.rows, dout.heads, dout.channels);
  for_each_row(selection, dout.heads, sequence, [&](int64_t b, int64_t head, int64_t row, const Window& window) {
    for (int64_t token = window.scatter_begin(); token < window.scatter_end(); ++token) {
      add(drows.at(b, row, head), 1, dout.at(b, token, head), dout.channels);
    }
  });
  return drows;
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Selection& selection,
                 const Sequence& sequence, double softmax_scale) {
  const Tensor q_rows = gather(q, selection, sequence);
  const Tensor k_rows = gather(k, selection, sequence);
  const Tensor v_rows = gather(v, selection, sequence);
  Tensor o_rows(q.batch, selection.rows, q.heads, q.channels);
  for (const std::vector<int64_t>& rows : rows_of_documents(selection, sequence)) {
    for (int64_t b = 0; b < q.batch; ++b) {
      for (int64_t head = 0; head < q.heads; ++head) {
        const Head at{b, head, head * k.heads / q.heads};
        attend(q_rows, k_rows, v_rows, at, rows, scale_of(softmax_scale, q), o_rows);
      }
    }
  }
  return scatter(o_rows, selection, sequence);
}

Gradients attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Selection& selection,
                             const Tensor& dout, const Sequence& sequence, double softmax_scale) {
  const Tensor q_rows = gather(q, selection, sequence);
  const Tensor k_rows = gather(k, selection, sequence);
  const Tensor v_rows = gather(v, selection, sequence);
  const Tensor do_rows = scatter_backward(dout, selection, sequence);
  Gradients by_row{Tensor(q.batch, selection.rows, q.heads, q.channels),
                   Tensor(k.batch, selection.rows, k.heads, k.channels),
                   Tensor(v.batch, selection.rows, v.heads, v.channels)};
  for (const std::vector<int64_t>& rows : rows_of_documents(selection, sequence)) {
    for (int64_t b = 0; b < q.batch; ++b) {
      for (int64_t head = 0; head < q.heads; ++head) {
        const Head at{b, head, head * k.heads / q.heads};
        attend_backward(q_rows, k_rows, v_rows, at, rows, scale_of(softmax_scale, q), do_rows, by_row);
      }
    }
  }
  return {gather_backward(by_row.dq, selection, sequence), gather_backward(by_row.dk, selection, sequence),
          gather_backward(by_row.dv, selection, sequence)};
}

}  // namespace lighthouse::reference
