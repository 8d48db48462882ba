// Rows through a range of decoder blocks in one call: what a pass is, without an interpreter in between.
//
// All threads walk the same list of phases; the rows of a phase are handed out in small pieces, so that a thread that
// the system took off its core holds up the others by one piece and not by half of the work.
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <thread>
#include <vector>

#include "kernels.h"

namespace plait {

struct Block {
  Matrix qkv, out, gate_up, down;
  const float *attention_norm, *mlp_norm;              // before attention and before the MLP
  const float *after_attention_norm, *after_mlp_norm;  // null unless the family has them
  const float *query_norm, *key_norm;                  // null unless the family has them
  int32_t window;                                      // keys a query sees, itself included; 0: all
  int32_t rope;                                        // index into Model::frequencies
};

struct Model {
  const Block* blocks;
  const float* frequencies[2];  // head_dim / 2 inverse frequencies each
  int32_t count, hidden, inner, heads, kv_heads, head_dim, gelu, half_kv;
  float eps, attention_scale;
};

// Rows of one job: steps start to start + count - 1; kv is (blocks, 2, kv_heads, room, head_dim).
struct Span {
  void* kv;
  int64_t room, start, count;
};

class Team {
 public:
  // Says how many threads there are; each then makes itself a member.
  void gather(int size) { size_ = size; }

  // Whether there was no memory for some piece.
  bool short_of_memory() const { return short_.load(std::memory_order_relaxed); }

  struct Member {
    Team& team;
    bool leader;
    int phase = 0;

    // Hands out [0, count) in pieces and waits until all are done; after one that got no memory none is done any more.
    template <class Work>
    void share(long count, long grain, Work work) {
      if (team.size_ == 1) {
        team.attempt(work, 0L, count);
        return;
      }
      std::atomic<long>& next = team.next_[phase & 3].value;
      if (leader) team.next_[(phase + 2) & 3].value.store(0, std::memory_order_relaxed);
      for (;;) {
        const long from = next.fetch_add(grain, std::memory_order_relaxed);
        if (from >= count) break;
        team.attempt(work, from, from + grain < count ? from + grain : count);
      }
      team.wait();
      phase++;
    }
  };

 private:
  struct alignas(64) Counter {
    std::atomic<long> value{0};
  };

  // No exception may leave a thread of a parallel region: it would end the process.
  template <class Work>
  void attempt(Work& work, long from, long to) {
    if (short_of_memory()) return;
    try {
      work(from, to);
    } catch (const std::bad_alloc&) {
      short_.store(true, std::memory_order_relaxed);
    }
  }

  void wait() {
    const int before = turn_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      turn_.store(before + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; turn_.load(std::memory_order_acquire) == before; spins++) {
      if (spins > 4000)
        std::this_thread::yield();
#if defined(__AVX512F__)
      else
        _mm_pause();
#endif
    }
  }

  int size_ = 0;
  std::atomic<bool> short_{false};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> turn_{0};
  Counter next_[4];
};

// Neighbouring rows of one job.
struct Group {
  long from;
  int count;
};

struct Buffers {
  std::vector<float> normed, sums, qkv, mixed, made, cosine, sine;
  std::vector<uint16_t> low;
  std::vector<int64_t> position, owner;  // of each row: its step, its span
  std::vector<Group> groups;
};

inline float square_mean(const float* x, int n) {
  v16 acc = {};
  int k = 0;
  for (; k + 16 <= n; k += 16) {
    v16 v = load(x + k);
    acc += v * v;
  }
  float total = sum(acc);
  for (; k < n; k++) total += x[k] * x[k];
  return total / n;
}

inline void normalise(const float* x, const float* scale, float eps, int n, float* y) {
  const float by = 1.0f / std::sqrt(square_mean(x, n) + eps);
  for (int k = 0; k < n; k++) y[k] = x[k] * by * scale[k];
}

inline void add_normalised(const float* x, const float* scale, float eps, int n, float* y) {
  const float by = 1.0f / std::sqrt(square_mean(x, n) + eps);
  for (int k = 0; k < n; k++) y[k] += x[k] * by * scale[k];
}

// Fills what the kernels of this matrix read of a row of activations: fp32, or bf16 and the sums of its groups.
inline void prepare(const Matrix& a, const Acts& x, long row, const float* from = nullptr) {
  const float* f = from ? from : x.f + row * a.cols;
  if (a.kind != F32)
    for (int k = 0; k < a.cols; k++) x.b[row * a.cols + k] = to_bf16(f[k]);
  if (from && (a.kind == F32 || !PLAIT_BF16)) std::memcpy(x.f + row * a.cols, from, sizeof(float) * a.cols);
  if (a.kind == I4)
    for (int g = 0; g < a.cols / GROUP; g++) {
      float total = 0;
      for (int k = 0; k < GROUP; k++) total += PLAIT_BF16 ? one(x.b + row * a.cols + g * GROUP + k) : f[g * GROUP + k];
      x.sums[row * (a.cols / GROUP) + g] = total;
    }
}

inline void rotate(float* x, const float* cosine, const float* sine, int half) {
  for (int k = 0; k < half; k++) {
    const float a = x[k], b = x[k + half];
    x[k] = a * cosine[k] - b * sine[k];
    x[k + half] = b * cosine[k] + a * sine[k];
  }
}

constexpr int QUERIES = 32;  // rows of one job that look at its keys together

// out[m] = sum over t of weights[m][t] values[t], for M rows of weights.
template <int M>
void mix_rows(const float* const* weights, const float* values, long seen, int width, float* const* out) {
  int k = 0;
  for (; k + 16 <= width; k += 64) {
    const int parts = width - k < 64 ? (width - k) / 16 : 4;
    v16 acc[M][4] = {};
    for (long t = 0; t < seen; t++)
      for (int j = 0; j < parts; j++) {
        v16 v = load(values + t * width + k + j * 16);
        hold(v);
        for (int m = 0; m < M; m++) acc[m][j] += weights[m][t] * v;
      }
    for (int m = 0; m < M; m++)
      for (int j = 0; j < parts; j++) {
        const v16 mean = acc[m][j];
        std::memcpy(out[m] + k + j * 16, &mean, sizeof mean);
      }
  }
  for (k = width & ~15; k < width; k++)
    for (int m = 0; m < M; m++) {
      float acc = 0;
      for (long t = 0; t < seen; t++) acc += weights[m][t] * values[t * width + k];
      out[m][k] = acc;
    }
}

// Makes scores of `seen` keys to weights that sum to 1; row sees the keys from `first` to `last` - 1.
inline void soften(float* p, long seen, long first, long last, float scale) {
  float best = -INFINITY, total = 0;
  for (long t = first; t < last; t++) best = p[t] * scale > best ? p[t] * scale : best;
#pragma omp simd reduction(+ : total)
  for (long t = first; t < last; t++) {
    p[t] = exp_fast(p[t] * scale - best);
    total += p[t];
  }
  const float by = 1.0f / total;
  for (long t = 0; t < first; t++) p[t] = 0;
  for (long t = first; t < last; t++) p[t] *= by;
  for (long t = last; t < seen; t++) p[t] = 0;
}

// Puts results where they belong in rows of `width`.
struct Copy {
  float* to;
  long width;
  void operator()(long row, int m, const float* values, int count) const {
    std::memcpy(to + m * width + row, values, sizeof(float) * count);
  }
};

class Pass {
 public:
  Pass(const Model& m, const Span* spans, int count, float* x, Buffers& b, int n)
      : m_(m), spans_(spans), x_(x), b_(b), n_(n), few_(n > 64 ? 8 : 1), q_(m.heads * m.head_dim), k_(m.kv_heads * m.head_dim) {
    const int widest = std::max({m.hidden, m.inner, q_});
    b.normed.resize(size_t(n) * widest);
    b.low.resize(size_t(n) * widest);
    b.sums.resize(size_t(n) * (widest / GROUP + 1));
    b.qkv.resize(size_t(n) * (q_ + 2 * k_));
    b.made.resize(size_t(n) * widest);
    b.cosine.resize(size_t(n) * m.head_dim);  // both ropes' halves
    b.sine.resize(size_t(n) * m.head_dim);
    b.position.clear();
    b.owner.clear();
    b.groups.clear();
    for (int s = 0; s < count; s++)
      for (int64_t i = 0; i < spans[s].count; i++) {
        if (i % QUERIES == 0)
          b.groups.push_back({long(b.owner.size()), int(std::min<int64_t>(QUERIES, spans[s].count - i))});
        b.position.push_back(spans[s].start + i);
        b.owner.push_back(s);
      }
  }

  void run(Team::Member& team) {
    const int half = m_.head_dim / 2;
    team.share(n_, few_, [&](long from, long to) {
      for (long row = from; row < to; row++)
        for (int kind = 0; kind < 2; kind++)
          for (int k = 0; k < half && m_.frequencies[kind]; k++) {
            const float angle = float(b_.position[row]) * m_.frequencies[kind][k];
            b_.cosine[(row * 2 + kind) * half + k] = std::cos(angle);
            b_.sine[(row * 2 + kind) * half + k] = std::sin(angle);
          }
    });
    for (int at = 0; at < m_.count; at++) m_.half_kv ? block<uint16_t>(team, at) : block<float>(team, at);
  }

 private:
  Acts acts(const Matrix& a) { return {b_.normed.data(), b_.low.data(), b_.sums.data(), a.cols}; }

  void norm(Team::Member& team, const float* scale, const Matrix& next) {
    const Acts x = acts(next);
    team.share(n_, few_, [&](long from, long to) {
      for (long row = from; row < to; row++) {
        normalise(x_ + row * m_.hidden, scale, m_.eps, m_.hidden, x.f + row * m_.hidden);
        prepare(next, x, row);
      }
    });
  }

  // x += a * acts, through a norm of its own where the family has one.
  void add(Team::Member& team, const Matrix& a, const float* after) {
    const Acts x = acts(a);
    float* made = b_.made.data();
    const int wide = m_.hidden;
    team.share(a.rows, 32, [&](long from, long to) {
      if (after)
        product(a, from, to, x, n_, Copy{made, wide});
      else
        product(a, from, to, x, n_, [&](long r, int m, const float* v, int count) {
          for (int i = 0; i < count; i++) x_[long(m) * wide + r + i] += v[i];
        });
    });
    if (!after) return;
    team.share(n_, few_, [&](long from, long to) {
      for (long row = from; row < to; row++) add_normalised(made + row * wide, after, m_.eps, wide, x_ + row * wide);
    });
  }

  template <class T>
  void block(Team::Member& team, int at) {
    const Block& k = m_.blocks[at];
    norm(team, k.attention_norm, k.qkv);
    const int width = q_ + 2 * k_;
    const Acts x = acts(k.qkv);
    team.share(k.qkv.rows, 32, [&](long from, long to) {
      product(k.qkv, from, to, x, n_, Copy{b_.qkv.data(), width});
    });
    team.share(long(n_) * m_.kv_heads, few_ * m_.kv_heads, [&](long from, long to) {
      for (long task = from; task < to; task++) keep<T>(k, at, task / m_.kv_heads, int(task % m_.kv_heads));
    });
    const Acts y = acts(k.out);
    // Heads that share keys go together where there is enough to do, and apart where threads would go idle.
    const long groups = b_.groups.size();
    const int each = groups * m_.kv_heads < 8 ? 1 : m_.heads / m_.kv_heads, parts = m_.heads / each;
    team.share(groups * parts, 1, [&](long from, long to) {
      for (long task = from; task < to; task++)
        mix<T>(k, at, b_.groups[task / parts], int(task % parts) * each, each, y.f);
    });
    if (k.out.kind != F32)
      team.share(n_, few_, [&](long from, long to) {
        for (long row = from; row < to; row++) prepare(k.out, y, row);
      });
    add(team, k.out, k.after_attention_norm);
    norm(team, k.mlp_norm, k.gate_up);
    gate(team, k);
    add(team, k.down, k.after_mlp_norm);
  }

  // Rotates a key head and writes it and its value behind the accepted steps.
  template <class T>
  void keep(const Block& k, int at, long row, int head) {
    const int d = m_.head_dim;
    float* key = b_.qkv.data() + row * (q_ + 2 * k_) + q_ + head * d;
    if (k.key_norm) normalise(key, k.key_norm, m_.eps, d, key);
    const long angle = (row * 2 + k.rope) * (d / 2);
    rotate(key, b_.cosine.data() + angle, b_.sine.data() + angle, d / 2);
    const Span& span = spans_[b_.owner[row]];
    T* to = static_cast<T*>(span.kv) + ((int64_t(at) * 2 * m_.kv_heads + head) * span.room + b_.position[row]) * d;
    for (int i = 0; i < d; i++) store(to + i, key[i]);
    to += int64_t(m_.kv_heads) * span.room * d;
    for (int i = 0; i < d; i++) store(to + i, key[k_ + i]);
  }

  // Attention of `each` heads that share keys, for a group of rows of one job: scores of all keys that any of the rows
  // sees, then each row its own.
  template <class T>
  void mix(const Block& k, int at, Group rows, int head, int each, float* out) {
    const int d = m_.head_dim, n = rows.count * each, group = head / (m_.heads / m_.kv_heads);
    static thread_local std::vector<float> queries, scores, wide;
    static thread_local std::vector<uint16_t> low;
    queries.resize(size_t(n) * d);
    low.resize(size_t(n) * d);
    const Acts q{queries.data(), low.data(), nullptr, d};
    const Span& span = spans_[b_.owner[rows.from]];
    const int64_t end = b_.position[rows.from] + rows.count;
    const int64_t begin = seen_from(k, b_.position[rows.from]), seen = end - begin;
    const T* keys = static_cast<const T*>(span.kv) + ((int64_t(at) * 2 * m_.kv_heads + group) * span.room + begin) * d;
    const Matrix a{keys, nullptr, nullptr, nullptr, nullptr, int32_t(seen), d, sizeof(T) == 2 ? BF16 : F32, 0};
    scores.resize(size_t(n) * seen);
    std::vector<const float*>& weights = weights_of_thread(n);
    std::vector<float*>& to = places_of_thread(n);
    for (int i = 0; i < n; i++) {
      const long row = rows.from + i / each;
      std::memcpy(queries.data() + i * d, turned_query(k, row, head + i % each), sizeof(float) * d);
      prepare(a, q, i);
      weights[i] = scores.data() + i * seen;
      to[i] = out + row * q_ + (head + i % each) * d;
    }
    product(a, 0, seen, q, n, Copy{scores.data(), long(seen)});
    for (int i = 0; i < n; i++) {
      const int64_t position = b_.position[rows.from + i / each];
      soften(scores.data() + i * seen, seen, seen_from(k, position) - begin, position + 1 - begin, m_.attention_scale);
    }
    const float* values = widened(keys + int64_t(m_.kv_heads) * span.room * d, seen * d, wide);
    int i = 0;
    for (; i + 6 <= n; i += 6) mix_rows<6>(&weights[i], values, seen, d, &to[i]);
    for (; i + 3 <= n; i += 3) mix_rows<3>(&weights[i], values, seen, d, &to[i]);
    for (; i < n; i++) mix_rows<1>(&weights[i], values, seen, d, &to[i]);
  }

  static std::vector<const float*>& weights_of_thread(int n) {
    static thread_local std::vector<const float*> made;
    made.resize(n);
    return made;
  }

  static std::vector<float*>& places_of_thread(int n) {
    static thread_local std::vector<float*> made;
    made.resize(n);
    return made;
  }

  // Values in fp32: as they lie, or widened once for all rows that read them.
  static const float* widened(const float* values, long, std::vector<float>&) { return values; }

  static const float* widened(const uint16_t* values, long count, std::vector<float>& spare) {
    if (long(spare.size()) < count) spare.resize(count * 2);
    long i = 0;
    for (; i + 16 <= count; i += 16) {
      const v16 v = load(values + i);
      std::memcpy(spare.data() + i, &v, sizeof v);
    }
    for (; i < count; i++) spare[i] = one(values + i);
    return spare.data();
  }

  static int64_t seen_from(const Block& k, int64_t position) {
    return k.window && position + 1 > k.window ? position + 1 - k.window : 0;
  }

  const float* turned_query(const Block& k, long row, int head) {
    const int d = m_.head_dim;
    float* query = b_.qkv.data() + row * (q_ + 2 * k_) + head * d;
    if (k.query_norm) normalise(query, k.query_norm, m_.eps, d, query);
    const long angle = (row * 2 + k.rope) * (d / 2);
    rotate(query, b_.cosine.data() + angle, b_.sine.data() + angle, d / 2);
    return query;
  }

  void gate(Team::Member& team, const Block& k) {
    const Acts x = acts(k.gate_up);
    float* made = b_.made.data();
    const int inner = m_.inner;
    team.share(inner, 32, [&](long from, long to) {
      product(k.gate_up, from, to, x, n_, Copy{made, inner});
      if (m_.gelu)
        activate(made, from, to, [](float v) {
          const float t = 0.7978845608028654f * (v + 0.044715f * v * v * v);
          return v - v / (1.0f + exp_fast(2.0f * t));  // 0.5 v (1 + tanh t)
        });
      else
        activate(made, from, to, [](float v) { return v / (1.0f + exp_fast(-v)); });
      product(k.gate_up, inner + from, inner + to, x, n_, [&](long r, int m, const float* v, int count) {
        for (int i = 0; i < count; i++) made[long(m) * inner + r - inner + i] *= v[i];
      });
    });
    const Acts y = acts(k.down);
    team.share(n_, few_, [&](long from, long to) {
      for (long row = from; row < to; row++) prepare(k.down, y, row, made + row * inner);
    });
  }

  template <class Function>
  void activate(float* made, long from, long to, Function f) {
    for (int m = 0; m < n_; m++)
      for (long r = from; r < to; r++) made[long(m) * m_.inner + r] = f(made[long(m) * m_.inner + r]);
  }

  const Model& m_;
  const Span* spans_;
  float* x_;
  Buffers& b_;
  const int n_, few_, q_, k_;  // few_: rows of a piece where each row is little work
};

static Buffers& buffers() {
  static thread_local Buffers made;
  return made;
}

// Has all threads do the work; false if there was no memory for some of it.
template <class Work>
static bool together(int threads, Work work) {
  Team team;
#pragma omp parallel num_threads(threads)
  {
#pragma omp single
    team.gather(omp_get_num_threads());  // the system may give fewer than were asked for
    Team::Member member{team, omp_get_thread_num() == 0};
    work(member);
  }
  return !team.short_of_memory();
}

}  // namespace plait

extern "C" {

// Runs the rows of all spans, x (n, hidden) fp32, through the blocks in place; 1 if there is no memory for them.
int plait_forward(const plait::Model* model, const plait::Span* spans, int count, float* x, int threads) {
  int n = 0;
  for (int s = 0; s < count; s++) n += int(spans[s].count);
  try {
    plait::Pass pass(*model, spans, count, x, plait::buffers(), n);
    return plait::together(threads, [&](plait::Team::Member& team) { pass.run(team); }) ? 0 : 1;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

// Final norm and head: logits (n, rows of the head) of rows x (n, hidden); 1 if there is no memory for them.
int plait_head(const plait::Matrix* head, const float* norm, float eps, const float* x, int n, float* logits,
               int threads) {
  using namespace plait;
  Buffers& b = buffers();
  const int cols = head->cols;
  try {
    b.normed.resize(size_t(n) * cols);
    b.low.resize(size_t(n) * cols);
    b.sums.resize(size_t(n) * (cols / GROUP + 1));
  } catch (const std::bad_alloc&) {
    return 1;
  }
  const Acts acts{b.normed.data(), b.low.data(), b.sums.data(), cols};
  const bool done = together(threads, [&](Team::Member& team) {
    team.share(n, 1, [&](long from, long to) {
      for (long row = from; row < to; row++) {
        normalise(x + row * cols, norm, eps, cols, acts.f + row * cols);
        prepare(*head, acts, row);
      }
    });
    team.share(head->rows, 128, [&](long from, long to) {
      product(*head, from, to, acts, n, Copy{logits, head->rows});
    });
  });
  return done ? 0 : 1;
}

}  // extern "C"
