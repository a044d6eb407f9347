// A tracker for `mobileinst check-tracker --command ./tracker`, in C++17 with Debian's nlohmann-json3-dev:
//   g++ -std=c++17 -O2 docs/examples/tracker.cpp -o tracker
// One JSON object per line in, one per line out; the protocol is docs/check-tracker.md.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <iostream>
#include <limits>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

using nlohmann::json;
using Kernel = std::vector<double>;
using Kernels = std::vector<Kernel>;
using Map = std::vector<std::vector<double>>;
using Order = std::vector<int>;

// Cosines -----------------------------------------------------------------------------------------------

double dot(const Kernel& a, const Kernel& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

// The kernel at norm 1, by way of its largest channel, so that squares neither overflow nor vanish.
Kernel unit(Kernel kernel) {
  double largest = 0;
  for (double value : kernel) {
    if (!std::isfinite(value)) throw std::runtime_error("a kernel is not finite");
    largest = std::max(largest, std::abs(value));
  }
  if (largest == 0) return kernel;  // Its cosine with everything is 0.
  for (double& value : kernel) value /= largest;
  const double norm = std::sqrt(dot(kernel, kernel));
  for (double& value : kernel) value /= norm;
  return kernel;
}

void requireLength(const Kernels& kernels, std::size_t length) {
  for (const Kernel& kernel : kernels)
    if (kernel.size() != length) throw std::runtime_error("kernels differ in length");
}

// Assignment --------------------------------------------------------------------------------------------

// A square of integer costs: cosines as multiples of 2⁻⁴⁰, so that sums and ties are exact, padded with zeros
// that stand for "nothing".
class Assignment {
 public:
  Assignment(const Kernels& previous, const Kernels& current)
      : slots_(previous.size()), queries_(current.size()), size_(std::max(slots_, queries_)),
        cost_(size_, std::vector<std::int64_t>(size_, 0)), u_(size_ + 1), v_(size_ + 1), owner_(size_ + 1, size_) {
    Kernels rows, columns;
    for (const Kernel& kernel : previous) rows.push_back(unit(kernel));
    for (const Kernel& kernel : current) columns.push_back(unit(kernel));
    for (int i = 0; i < slots_; ++i)
      for (int j = 0; j < queries_; ++j) cost_[i][j] = -std::llround(std::ldexp(dot(rows[i], columns[j]), 40));
  }

  // The first, in dictionary order, of the permutations with the largest total.
  Order permutation() {
    for (int row = 0; row < size_; ++row) add(row);
    owner_.pop_back();
    takeFirstOfTies();
    Order found(slots_, -1);
    for (int j = 0; j < queries_; ++j)
      if (owner_[j] < slots_) found[owner_[j]] = j;
    return found;
  }

 private:
  // One more row, by a shortest augmenting path with potentials (Kuhn 1955, Munkres 1957).
  void add(int row) {
    constexpr auto infinity = std::numeric_limits<std::int64_t>::max();
    std::vector<std::int64_t> least(size_ + 1, infinity);
    std::vector<bool> used(size_ + 1, false);
    std::vector<int> from(size_ + 1, size_);
    int column = size_;
    owner_[size_] = row;
    do {
      used[column] = true;
      const int at = owner_[column];
      std::int64_t delta = infinity;
      int next = size_;
      for (int j = 0; j < size_; ++j) {
        if (used[j]) continue;
        const std::int64_t reduced = cost_[at][j] - u_[at] - v_[j];
        if (reduced < least[j]) least[j] = reduced, from[j] = column;
        if (least[j] < delta) delta = least[j], next = j;
      }
      for (int j = 0; j <= size_; ++j) {
        if (used[j]) u_[owner_[j]] += delta, v_[j] -= delta;
        else if (least[j] != infinity) least[j] -= delta;
      }
      column = next;
    } while (owner_[column] != size_);
    for (; column != size_; column = from[column]) owner_[column] = owner_[from[column]];
  }

  bool tight(int row, int column) const { return cost_[row][column] == u_[row] + v_[column]; }

  // Fix slot after slot at its lowest query from which the others can still be matched.
  void takeFirstOfTies() {
    fixed_.assign(size_, false);
    for (int slot = 0; slot < slots_; ++slot) {
      const int now = columnOf(slot);
      for (int query = 0; query < std::min(now, queries_); ++query)
        if (!fixed_[query] && tight(slot, query) && give(slot, now, query)) break;
      fixed_[columnOf(slot)] = true;
    }
  }

  bool give(int slot, int now, int query) {
    const std::vector<int> before = owner_;
    owner_[now] = -1;
    const int displaced = owner_[query];
    owner_[query] = slot;
    fixed_[query] = true;
    std::vector<bool> seen(size_, false);
    if (rematch(displaced, seen)) return true;
    fixed_[query] = false;
    owner_ = before;
    return false;
  }

  bool rematch(int row, std::vector<bool>& seen) {
    for (int j = 0; j < size_; ++j) {
      if (fixed_[j] || seen[j] || !tight(row, j)) continue;
      seen[j] = true;
      if (owner_[j] == -1 || rematch(owner_[j], seen)) {
        owner_[j] = row;
        return true;
      }
    }
    return false;
  }

  int columnOf(int row) const { return int(std::find(owner_.begin(), owner_.end(), row) - owner_.begin()); }

  int slots_, queries_, size_;
  std::vector<std::vector<std::int64_t>> cost_;
  std::vector<std::int64_t> u_, v_;
  std::vector<int> owner_;  // of each column
  std::vector<bool> fixed_;
};

Order associate(const Kernels& previous, const Kernels& current) {
  const std::size_t length = !previous.empty() ? previous[0].size() : !current.empty() ? current[0].size() : 0;
  requireLength(previous, length);
  requireLength(current, length);
  return Assignment(previous, current).permutation();
}

// Videos ------------------------------------------------------------------------------------------------

// Σ over channels of kernel[c] · features[c][y][x].
Map maskLogits(const Kernel& kernel, const std::vector<Map>& features) {
  Map logits(features.at(0).size(), std::vector<double>(features[0].at(0).size(), 0.0));
  for (std::size_t c = 0; c < features.size(); ++c)
    for (std::size_t y = 0; y < logits.size(); ++y)
      for (std::size_t x = 0; x < logits[y].size(); ++x) logits[y][x] += kernel.at(c) * features[c].at(y).at(x);
  return logits;
}

// A keyframe's kernels in the order of the slots, and the query of each slot. One network processes the whole video.
struct Keyframe {
  Order order;
  Kernels kernels;

  Keyframe(const json& now, bool first, const Kernels& before) {
    const auto queries = now.at("kernels").get<Kernels>();
    requireLength(queries, now.at("mask_features").size());
    if (first) {
      for (const Kernel& kernel : queries) unit(kernel);  // Refuses what is not finite.
      order.resize(queries.size());
      std::iota(order.begin(), order.end(), 0);
    } else {
      if (queries.size() != before.size()) throw std::runtime_error("the number of kernels changes in the video");
      order = associate(before, queries);
    }
    for (int query : order) kernels.push_back(queries[query]);
  }
};

json video(const json& request) {
  json state = request.at("state");
  if (state.is_null()) state = {{"frame", 0}, {"order", json::array()}, {"kernels", json::array()}};
  long frame = state.at("frame");
  auto order = state.at("order").get<Order>();
  auto kernels = state.at("kernels").get<Kernels>();
  json frames = json::array();
  for (const json& now : request.at("frames")) {
    const bool keyframe = frame % request.at("keyframe_interval").get<long>() == 0;
    if (keyframe) {
      Keyframe next(now, frame == 0, kernels);
      order = next.order;
      kernels = next.kernels;
    }
    json masks = json::array();
    for (const Kernel& kernel : kernels) masks.push_back(maskLogits(kernel, now.at("mask_features")));
    frames.push_back({{"keyframe", keyframe}, {"order", order}, {"masks", masks}});
    ++frame;
  }
  return {{"frames", frames}, {"state", {{"frame", frame}, {"order", order}, {"kernels", kernels}}}};
}

// Online ------------------------------------------------------------------------------------------------

constexpr double kMask = 0.45;  // Probability above which a pixel belongs to a mask.

double sigmoid(double value) { return 1 / (1 + std::exp(-value)); }

// The mean of the probabilities that belong to the mask, 0 if none does.
double maskness(const Map& logits) {
  double sum = 0;
  int count = 0;
  for (const auto& row : logits)
    for (double value : row)
      if (const double probability = sigmoid(value); probability > kMask) sum += probability, ++count;
  return sum / (count + 1e-6);
}

// COCO's run lengths: down the columns, beginning with the pixels outside; null for an empty mask.
json runLengths(const Map& logits) {
  std::vector<int> counts{0};
  bool inside = false;
  for (std::size_t x = 0; x < logits[0].size(); ++x)
    for (const auto& row : logits) {
      if ((sigmoid(row[x]) > kMask) != inside) {
        inside = !inside;
        counts.push_back(0);
      }
      ++counts.back();
    }
  if (counts.size() == 1) return nullptr;
  return {{"size", {logits.size(), logits[0].size()}}, {"counts", counts}};
}

struct Slot {
  Kernel kernel;
  std::vector<double> sums;  // Of each class's scores over keyframes.
  std::optional<int> identity;
};

struct Online {
  long frame = 0, keyframes = 0;
  int born = 0;
  std::vector<Slot> slots;

  explicit Online(const json& state) {
    if (state.is_null()) return;
    frame = state.at("frame"), keyframes = state.at("keyframes"), born = state.at("born");
    for (const json& one : state.at("slots"))
      slots.push_back({one.at("kernel"), one.at("sums"),
                       one.at("identity").is_null() ? std::nullopt : std::optional<int>(one.at("identity"))});
  }

  json state() const {
    json listed = json::array();
    for (const Slot& one : slots) {
      const json identity = one.identity ? json(*one.identity) : json();
      listed.push_back({{"kernel", one.kernel}, {"sums", one.sums}, {"identity", identity}});
    }
    return {{"frame", frame}, {"keyframes", keyframes}, {"born", born}, {"slots", listed}};
  }

  // A slot without a track gives birth to one at or above `birth`; a track below `death` ends.
  void takeKeyframe(const json& now, const json& rules) {
    Kernels before;
    for (const Slot& one : slots) before.push_back(one.kernel);
    const Keyframe next(now, frame == 0, before);
    for (const char* scores : {"class_logits", "objectness"})
      if (now.at(scores).size() != next.kernels.size()) throw std::runtime_error("each kernel needs its scores");
    slots.resize(next.kernels.size());
    for (std::size_t i = 0; i < slots.size(); ++i) {
      Slot& slot = slots[i];
      slot.kernel = next.kernels[i];
      const double best = score(slot, now, next.order[i], rules.at("rescore"));
      if (!slot.identity && best >= rules.at("birth").get<double>()) slot.identity = born++;
      else if (slot.identity && best < rules.at("death").get<double>()) slot.identity.reset();
    }
    ++keyframes;
  }

  // Adds the query's scores to the slot's sums, and returns the best of them.
  static double score(Slot& slot, const json& now, int query, bool rescore) {
    const double weight = rescore ? maskness(maskLogits(slot.kernel, now.at("mask_features"))) : 1.0;
    const double objectness = sigmoid(now.at("objectness").at(query).at(0));
    const auto logits = now.at("class_logits").at(query).get<std::vector<double>>();
    slot.sums.resize(logits.size(), 0.0);
    double best = 0;
    for (std::size_t label = 0; label < logits.size(); ++label) {
      const double found = weight * std::sqrt(sigmoid(logits[label]) * objectness);
      slot.sums[label] += found;
      best = std::max(best, found);
    }
    return best;
  }

  json living(const json& now) const {
    std::vector<const Slot*> alive;
    for (const Slot& one : slots)
      if (one.identity) alive.push_back(&one);
    std::sort(alive.begin(), alive.end(), [](auto* one, auto* other) { return *one->identity < *other->identity; });
    json tracks = json::array();
    for (const Slot* one : alive) {
      const auto best = std::max_element(one->sums.begin(), one->sums.end());
      tracks.push_back({{"identity", *one->identity},
                        {"label", best - one->sums.begin()},
                        {"score", *best / double(keyframes)},
                        {"segmentation", runLengths(maskLogits(one->kernel, now.at("mask_features")))}});
    }
    return {{"tracks", tracks}};
  }
};

json online(const json& request) {
  Online running(request.at("state"));
  json frames = json::array();
  for (const json& now : request.at("frames")) {
    if (running.frame % request.at("keyframe_interval").get<long>() == 0) running.takeKeyframe(now, request);
    frames.push_back(running.living(now));
    ++running.frame;
  }
  return {{"frames", frames}, {"state", running.state()}};
}

// Requests ----------------------------------------------------------------------------------------------

json answer(const json& request) {
  const std::string op = request.at("op");
  if (op == "associate") return {{"permutation", associate(request.at("previous"), request.at("current"))}};
  if (op == "video") return video(request);
  if (op == "online") return online(request);
  return {{"unsupported", "op " + op}};
}

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    json reply;
    try {
      reply = answer(json::parse(line));
    } catch (const std::exception& error) {
      reply = {{"error", error.what()}};
    }
    std::cout << reply.dump() << std::endl;
  }
}
