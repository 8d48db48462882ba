// Dot products of activation rows with weight rows, in the four types a weight may have.
//
// Weights lie row by row as the model has them, (rows, cols), so that the same copy serves torch's kernels for long
// prompts. A tile is R weight rows times M activation rows; sums are fp32. With AVX512-BF16 two bf16 products are one
// instruction; elsewhere the same loops run on fp32 through the compiler's portable vectors.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define PLAIT_BF16 1
#else
#define PLAIT_BF16 0
#endif

namespace plait {

typedef float v16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));
typedef int8_t i8x16 __attribute__((vector_size(16)));
typedef uint8_t u8x16 __attribute__((vector_size(16)));

enum Kind : int32_t { F32 = 0, BF16 = 1, I8 = 2, I4 = 3 };

constexpr int GROUP = 32;  // weights that share a scale and a least value in I4

// I8: value = scale[row] * int8. I4: pairs of groups as 32 bytes, the first group in the low nibbles;
// value = scale * nibble + least, both fp16, (rows, cols / 32).
struct Matrix {
  const void* data;
  const float* scale;
  const uint16_t* group_scale;
  const uint16_t* group_least;
  const float* bias;
  int32_t rows, cols, kind, reserved;
};

// Rows of activations: fp32, the same in bf16, and per row the sums of each group of 32 (I4 only).
struct Acts {
  float* f;
  uint16_t* b;
  float* sums;
  int32_t cols;
};

inline v16 load(const float* p) {
  v16 out;
  std::memcpy(&out, p, sizeof out);
  return out;
}

inline v16 load(const uint16_t* p) {  // bf16
  u16x16 raw;
  std::memcpy(&raw, p, sizeof raw);
  u32x16 wide = __builtin_convertvector(raw, u32x16) << 16;
  v16 out;
  std::memcpy(&out, &wide, sizeof out);
  return out;
}

inline float one(const float* p) { return *p; }

inline float one(const uint16_t* p) {
  uint32_t wide = uint32_t(*p) << 16;
  float out;
  std::memcpy(&out, &wide, sizeof out);
  return out;
}

inline uint16_t to_bf16(float value) {  // to nearest, ties to even; NaN stays NaN
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return uint16_t((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded);
}

inline void store(float* p, float value) { *p = value; }
inline void store(uint16_t* p, float value) { *p = to_bf16(value); }

inline float half(uint16_t bits) {
  _Float16 value;
  std::memcpy(&value, &bits, sizeof value);
  return float(value);
}

inline float sum(v16 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  float s = 0;
  for (int i = 0; i < 16; i++) s += v[i];
  return s;
#endif
}

// exp to about 2e-7 relative, without a call so that loops vectorise; below -87 it is 0 for all that matters.
inline float exp_fast(float x) {
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  float n = __builtin_floorf(x * 1.44269504088896341f + 0.5f);
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits = (int32_t(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

// Keeps a value in a register: without it the compiler reads it from memory again for each of its uses.
template <class V>
inline void hold(V& value) {
#if defined(__AVX512F__)
  asm("" : "+v"(value));
#else
  (void)value;
#endif
}

// Fetches what the next R rows hold while these are multiplied: several rows at once are too many streams for the
// processor to see ahead by itself (half of the memory's speed without this, measured on Zen 4).
template <int R, int BYTES>
inline void fetch_ahead(const void* rows, long row_bytes, long step) {
  const char* next = static_cast<const char*>(rows) + R * row_bytes + step * R * BYTES;
  for (int line = 0; line < (R * BYTES + 63) / 64; line++) __builtin_prefetch(next + line * 64, 0, 3);
}

#if defined(__AVX512F__)
// The sums of four vectors: they share their shuffles, which counts where rows are short.
inline __m128 sums_of_four(v16 first, v16 second, v16 third, v16 fourth) {
  const __m512 a = (__m512)first, b = (__m512)second, c = (__m512)third, d = (__m512)fourth;
  const __m512d ab = (__m512d)_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512d cd = (__m512d)_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512 lanes = _mm512_add_ps((__m512)_mm512_unpacklo_pd(ab, cd), (__m512)_mm512_unpackhi_pd(ab, cd));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
#endif

// out[m][r] = the sum of each accumulator.
template <int R, int M>
inline void put(const v16 (&acc)[R][M], float (*out)[4]) {
  for (int m = 0; m < M; m++) {
#if defined(__AVX512F__)
    if (R == 4) {
      _mm_storeu_ps(out[m], sums_of_four(acc[0][m], acc[1 % R][m], acc[2 % R][m], acc[3 % R][m]));
      continue;
    }
#endif
    for (int r = 0; r < R; r++) out[m][r] = sum(acc[r][m]);
  }
}

// The portable tile: weights of any type that `load` or the lambdas widen to fp32.
template <int R, int M, int BYTES, class Widen>
inline void tile_wide(Widen widen, const void* rows, const float* x, int cols, float (*out)[4]) {
  v16 acc[R][M] = {};
  int k = 0;
  for (; k + 16 <= cols; k += 16) {
    v16 w[R];
    fetch_ahead<R, 16 * BYTES>(rows, long(cols) * BYTES, k / 16);
    for (int r = 0; r < R; r++) hold(w[r] = widen(r, k));
    for (int m = 0; m < M; m++) {
      v16 v = load(x + long(m) * cols + k);
      hold(v);
      for (int r = 0; r < R; r++) acc[r][m] += w[r] * v;
    }
  }
  put<R, M>(acc, out);
}

template <int R, int M, class T>
inline void rest(const T* w, long stride, const float* x, int from, int cols, float (*out)[4]) {
  for (int k = from; k < cols; k++)
    for (int r = 0; r < R; r++)
      for (int m = 0; m < M; m++) out[m][r] += one(w + r * stride + k) * x[long(m) * cols + k];
}

template <int R, int M>
inline void tile_f32(const Matrix& a, long row, const Acts& x, int at, float (*out)[4]) {
  const float* w = static_cast<const float*>(a.data) + row * a.cols;
  const float* v = x.f + long(at) * a.cols;
  tile_wide<R, M, 4>([=](int r, int k) { return load(w + long(r) * a.cols + k); }, w, v, a.cols, out);
  rest<R, M>(w, a.cols, v, a.cols & ~15, a.cols, out);
}

template <int R, int M>
inline void tile_bf16(const Matrix& a, long row, const Acts& x, int at, float (*out)[4]) {
  const uint16_t* w = static_cast<const uint16_t*>(a.data) + row * a.cols;
#if PLAIT_BF16
  const uint16_t* v = x.b + long(at) * a.cols;
  v16 acc[R][M] = {};
  int k = 0;
  for (; k + 32 <= a.cols; k += 32) {
    __m512bh wide[R];
    fetch_ahead<R, 64>(w, long(a.cols) * 2, k / 32);
    for (int r = 0; r < R; r++) hold(wide[r] = (__m512bh)_mm512_loadu_si512(w + long(r) * a.cols + k));
    for (int m = 0; m < M; m++) {
      __m512bh y = (__m512bh)_mm512_loadu_si512(v + long(m) * a.cols + k);
      hold(y);
      for (int r = 0; r < R; r++) acc[r][m] = (v16)_mm512_dpbf16_ps((__m512)acc[r][m], wide[r], y);
    }
  }
  if (k < a.cols) {
    const __mmask32 mask = (__mmask32(1) << (a.cols - k)) - 1;
    for (int m = 0; m < M; m++) {
      const __m512bh y = (__m512bh)_mm512_maskz_loadu_epi16(mask, v + long(m) * a.cols + k);
      for (int r = 0; r < R; r++) {
        const __m512bh wide = (__m512bh)_mm512_maskz_loadu_epi16(mask, w + long(r) * a.cols + k);
        acc[r][m] = (v16)_mm512_dpbf16_ps((__m512)acc[r][m], wide, y);
      }
    }
  }
  put<R, M>(acc, out);
#else
  const float* v = x.f + long(at) * a.cols;
  tile_wide<R, M, 2>([=](int r, int k) { return load(w + long(r) * a.cols + k); }, w, v, a.cols, out);
  rest<R, M>(w, a.cols, v, a.cols & ~15, a.cols, out);
#endif
}

template <int R, int M>
inline void tile_i8(const Matrix& a, long row, const Acts& x, int at, float (*out)[4]) {
  const int8_t* w = static_cast<const int8_t*>(a.data) + row * a.cols;
#if PLAIT_BF16
  const uint16_t* v = x.b + long(at) * a.cols;
  v16 acc[R][M] = {};
  for (int k = 0; k < a.cols; k += 32) {
    __m512bh wide[R];
    fetch_ahead<R, 32>(w, a.cols, k / 32);
    for (int r = 0; r < R; r++) {
      const __m128i* p = reinterpret_cast<const __m128i*>(w + long(r) * a.cols + k);
      __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
      __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p + 1)));
      wide[r] = _mm512_cvtne2ps_pbh(high, low);  // exact: 8 bits hold every int8
    }
    for (int m = 0; m < M; m++) {
      __m512bh y = (__m512bh)_mm512_loadu_si512(v + long(m) * a.cols + k);
      hold(y);
      for (int r = 0; r < R; r++) acc[r][m] = (v16)_mm512_dpbf16_ps((__m512)acc[r][m], wide[r], y);
    }
  }
  put<R, M>(acc, out);
#else
  auto widen = [=](int r, int k) {
    i8x16 raw;
    std::memcpy(&raw, w + long(r) * a.cols + k, sizeof raw);
    return __builtin_convertvector(raw, v16);
  };
  tile_wide<R, M, 1>(widen, w, x.f + long(at) * a.cols, a.cols, out);
#endif
  for (int r = 0; r < R; r++)
    for (int m = 0; m < M; m++) out[m][r] *= a.scale[row + r];
}

template <int R, int M>
inline void tile_i4(const Matrix& a, long row, const Acts& x, int at, float (*out)[4]) {
  const uint8_t* w = static_cast<const uint8_t*>(a.data) + row * (a.cols / 2);
  const int groups = a.cols / GROUP;
  const uint16_t* scale = a.group_scale + row * groups;
  const uint16_t* least = a.group_least + row * groups;
  v16 acc[R][M] = {};
#if PLAIT_BF16
  const uint16_t* v = x.b + long(at) * a.cols;
  // bf16 of 0 to 15, looked up 32 at a time.
  const __m512i table = _mm512_castsi256_si512(_mm256_setr_epi16(
      0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150,
      0x4160, 0x4170));
  const __m512i nibble = _mm512_set1_epi16(15);
  const __m512 zero = _mm512_setzero_ps();
  for (int g = 0; g < groups; g += 2) {
    __m512bh low[R], high[R];
    __m512 s0[R], s1[R];
    fetch_ahead<R, GROUP>(w, a.cols / 2, g / 2);
    for (int r = 0; r < R; r++) {
      const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + r * (a.cols / 2) + g * 16));
      const __m512i both = _mm512_cvtepu8_epi16(raw);
      low[r] = (__m512bh)_mm512_permutexvar_epi16(_mm512_and_si512(both, nibble), table);
      high[r] = (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(both, 4), table);
      s0[r] = _mm512_cvtph_ps(_mm256_set1_epi16(scale[r * groups + g]));
      s1[r] = _mm512_cvtph_ps(_mm256_set1_epi16(scale[r * groups + g + 1]));
    }
    for (int m = 0; m < M; m++) {
      const uint16_t* p = v + long(m) * a.cols + g * GROUP;
      __m512bh y0 = (__m512bh)_mm512_loadu_si512(p);
      __m512bh y1 = (__m512bh)_mm512_loadu_si512(p + GROUP);
      for (int r = 0; r < R; r++) {
        __m512 t = _mm512_fmadd_ps(s0[r], _mm512_dpbf16_ps(zero, low[r], y0), (__m512)acc[r][m]);
        acc[r][m] = (v16)_mm512_fmadd_ps(s1[r], _mm512_dpbf16_ps(zero, high[r], y1), t);
      }
    }
  }
  for (int g = 0; g < groups; g += 16) {
    const __mmask16 mask = groups - g < 16 ? (1 << (groups - g)) - 1 : 0xffff;
    for (int m = 0; m < M; m++) {
      const __m512 s = _mm512_maskz_loadu_ps(mask, x.sums + long(at + m) * groups + g);
      for (int r = 0; r < R; r++) {
        const __m512 l = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, least + r * groups + g));
        acc[r][m] = (v16)_mm512_fmadd_ps(l, s, (__m512)acc[r][m]);
      }
    }
  }
  put<R, M>(acc, out);
#else
  const float* v = x.f + long(at) * a.cols;
  for (int k = 0; k < a.cols; k += 16) {
    const int g = k / GROUP;
    for (int r = 0; r < R; r++) {
      u8x16 raw;
      std::memcpy(&raw, w + r * (a.cols / 2) + (g / 2) * GROUP + k % GROUP, sizeof raw);
      const u8x16 four = g % 2 ? raw >> 4 : raw & 15;
      const v16 wide = __builtin_convertvector(four, v16) * half(scale[r * groups + g]);
      for (int m = 0; m < M; m++) acc[r][m] += wide * load(v + long(m) * a.cols + k);
    }
  }
  put<R, M>(acc, out);
  for (int r = 0; r < R; r++)
    for (int g = 0; g < groups; g++) {
      const float l = half(least[r * groups + g]);
      for (int m = 0; m < M; m++) out[m][r] += l * x.sums[long(at + m) * groups + g];
    }
#endif
}

template <int R, int M>
inline void tile(const Matrix& a, long row, const Acts& x, int at, float (*out)[4]) {
  switch (a.kind) {
    case F32: return tile_f32<R, M>(a, row, x, at, out);
    case BF16: return tile_bf16<R, M>(a, row, x, at, out);
    case I8: return tile_i8<R, M>(a, row, x, at, out);
    default: return tile_i4<R, M>(a, row, x, at, out);
  }
}

template <int R>
inline void tile_m(const Matrix& a, long row, const Acts& x, int at, int m, float (*out)[4]) {
  switch (m) {
    case 1: return tile<R, 1>(a, row, x, at, out);
    case 2: return tile<R, 2>(a, row, x, at, out);
    case 3: return tile<R, 3>(a, row, x, at, out);
    default: return tile<R, 4>(a, row, x, at, out);
  }
}

constexpr int RUN = 16;      // weight rows whose results are handed on together: one line of memory
constexpr int PANEL = 32;    // weight rows that many activation rows are multiplied with after they were repacked
constexpr int TOGETHER = 12;  // activation rows of one panel tile: 24 sums in registers
constexpr int MANY = 24;     // from so many activation rows on repacking pays

// bf16 of what has 8 bits at most, exactly.
inline uint16_t cut_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return uint16_t(bits >> 16);
}

// One row of a matrix in fp32 or bf16, without the scale that I8 applies to the sum.
template <class T>
inline void widen_row(const Matrix& a, long row, T* to) {
  if (a.kind == I8) {
    const int8_t* w = static_cast<const int8_t*>(a.data) + row * a.cols;
    for (int k = 0; k < a.cols; k++) to[k] = sizeof(T) == 4 ? T(w[k]) : T(cut_bf16(w[k]));
    return;
  }
  const uint8_t* w = static_cast<const uint8_t*>(a.data) + row * (a.cols / 2);
  for (int g = 0; g < a.cols / GROUP; g++) {
    const float scale = half(a.group_scale[row * (a.cols / GROUP) + g]);
    const float least = half(a.group_least[row * (a.cols / GROUP) + g]);
    const uint8_t* pairs = w + g / 2 * GROUP;
    const int shift = g % 2 * 4;
    for (int k = 0; k < GROUP; k++) {
      const float value = scale * float(pairs[k] >> shift & 15) + least;
      store(to + g * GROUP + k, value);
    }
  }
}

template <class T>
inline const T* whole_row(const Matrix& a, long row, T* spare) {
  if (a.kind == (sizeof(T) == 4 ? F32 : BF16)) return static_cast<const T*>(a.data) + row * a.cols;
  if (a.kind == BF16) {
    const uint16_t* w = static_cast<const uint16_t*>(a.data) + row * a.cols;
    for (int k = 0; k < a.cols; k++) spare[k] = T(one(w + k));
  } else {
    widen_row(a, row, spare);
  }
  return spare;
}

#if defined(__AVX512F__)
// Turns 16 rows of 16 words, `pitch` words apart, into columns that are PANEL words apart.
inline void turn(const uint32_t* from, long pitch, uint32_t* to) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(from + i * pitch);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
      a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
    }
  for (int i = 0; i < 4; i++) {
    const __m512i even = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88), odd = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
    const __m512i later = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
    const __m512i last = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
    _mm512_storeu_si512(to + i * PANEL, _mm512_shuffle_i32x4(even, later, 0x88));
    _mm512_storeu_si512(to + (i + 4) * PANEL, _mm512_shuffle_i32x4(odd, last, 0x88));
    _mm512_storeu_si512(to + (i + 8) * PANEL, _mm512_shuffle_i32x4(even, later, 0xdd));
    _mm512_storeu_si512(to + (i + 12) * PANEL, _mm512_shuffle_i32x4(odd, last, 0xdd));
  }
}
#endif

// to[k / S][row][k % S] for 32 rows: S neighbouring weights of a row lie together, two where the type is bf16.
template <class T>
inline void repack(const Matrix& a, long row, int count, T* to) {
  constexpr int S = 4 / sizeof(T);
  static thread_local std::vector<T> spare;
  spare.resize(a.cols);
  int k = 0;
  if (count < PANEL) std::memset(to, 0, sizeof(T) * PANEL * a.cols);
#if defined(__AVX512F__)
  if (count == PANEL && a.kind == (S == 1 ? F32 : BF16) && a.cols % S == 0) {
    const uint32_t* words = reinterpret_cast<const uint32_t*>(static_cast<const T*>(a.data) + row * a.cols);
    const long pitch = a.cols / S;
    for (; k + 16 * S <= a.cols; k += 16 * S)
      for (int half = 0; half < PANEL; half += 16)
        turn(words + half * pitch + k / S, pitch, reinterpret_cast<uint32_t*>(to + long(k) * PANEL) + half);
  }
#endif
  for (int r = 0; k < a.cols && r < count; r++) {
    const T* w = whole_row(a, row + r, spare.data());
    for (int at = k; at < a.cols; at += S) std::memcpy(to + at * PANEL + r * S, w + at, 4);
  }
}

// Calls for a part of the rows that are repacked next, `part` of `parts`, so that they are near by then.
inline void fetch_next_panel(const Matrix& a, long row, int part, int parts) {
  const long bits = a.kind == F32 ? 32 : a.kind == BF16 ? 16 : a.kind == I8 ? 8 : 4;
  const long bytes = PANEL * a.cols * bits / 8;
  const char* next = static_cast<const char*>(a.data) + (row + PANEL) * a.cols * bits / 8;
  for (long at = bytes * part / parts & ~63L; at < bytes * (part + 1) / parts; at += 64)
    __builtin_prefetch(next + at, 0, 2);
}

#if PLAIT_BF16
template <int M>
inline void panel(const uint16_t* w, const Acts& x, int at, float (*out)[PANEL]) {
  __m512 acc[M][2];
  for (int m = 0; m < M; m++) acc[m][0] = acc[m][1] = _mm512_setzero_ps();
  const uint16_t* v = x.b + long(at) * x.cols;
  for (int k = 0; k < x.cols; k += 2) {
    const __m512bh low = (__m512bh)_mm512_loadu_si512(w + k * PANEL);
    const __m512bh high = (__m512bh)_mm512_loadu_si512(w + k * PANEL + 32);
    for (int m = 0; m < M; m++) {
      int32_t pair;
      std::memcpy(&pair, v + long(m) * x.cols + k, sizeof pair);
      const __m512bh y = (__m512bh)_mm512_set1_epi32(pair);
      acc[m][0] = _mm512_dpbf16_ps(acc[m][0], low, y);
      acc[m][1] = _mm512_dpbf16_ps(acc[m][1], high, y);
    }
  }
  for (int m = 0; m < M; m++)
    for (int part = 0; part < 2; part++) _mm512_storeu_ps(out[m] + 16 * part, acc[m][part]);
}
#endif

template <int M>
inline void panel(const float* w, const Acts& x, int at, float (*out)[PANEL]) {
  const float* v = x.f + long(at) * x.cols;
#if defined(__AVX512F__)
  __m512 acc[M][2];
  for (int m = 0; m < M; m++) acc[m][0] = acc[m][1] = _mm512_setzero_ps();
  for (int k = 0; k < x.cols; k++) {
    const __m512 low = _mm512_loadu_ps(w + k * PANEL), high = _mm512_loadu_ps(w + k * PANEL + 16);
    for (int m = 0; m < M; m++) {
      const __m512 y = _mm512_set1_ps(v[long(m) * x.cols + k]);
      acc[m][0] = _mm512_fmadd_ps(low, y, acc[m][0]);
      acc[m][1] = _mm512_fmadd_ps(high, y, acc[m][1]);
    }
  }
  for (int m = 0; m < M; m++)
    for (int part = 0; part < 2; part++) _mm512_storeu_ps(out[m] + 16 * part, acc[m][part]);
#else
  v16 acc[M][2] = {};
  for (int k = 0; k < x.cols; k++)
    for (int m = 0; m < M; m++)
      for (int part = 0; part < 2; part++) acc[m][part] += load(w + k * PANEL + 16 * part) * v[long(m) * x.cols + k];
  for (int m = 0; m < M; m++) std::memcpy(out[m], acc[m], sizeof acc[m]);
#endif
}

template <class T>
inline void panel_m(const T* w, const Acts& x, int at, int m, float (*out)[PANEL]) {
  if (m == TOGETHER) return panel<TOGETHER>(w, x, at, out);
  for (int i = 0; i < m;) {
    if (m - i >= 4) {
      panel<4>(w, x, at + i, out + i);
      i += 4;
    } else {
      panel<1>(w, x, at + i, out + i);
      i += 1;
    }
  }
}

template <class T, class Put>
inline void product_of_many(const Matrix& a, long from, long to, const Acts& x, int n, Put put) {
  static thread_local std::vector<T> packed;
  packed.resize(size_t(PANEL) * a.cols);
  for (long row = from; row < to; row += PANEL) {
    const int count = to - row < PANEL ? int(to - row) : PANEL;
    repack(a, row, count, packed.data());
    for (int at = 0; at < n; at += TOGETHER) {
      const int m = n - at < TOGETHER ? n - at : TOGETHER;
      fetch_next_panel(a, row, at / TOGETHER, (n + TOGETHER - 1) / TOGETHER);
      float made[TOGETHER][PANEL];
      panel_m(packed.data(), x, at, m, made);
      for (int j = 0; j < m; j++) {
        if (a.kind == I8)
          for (int i = 0; i < count; i++) made[j][i] *= a.scale[row + i];
        if (a.bias)
          for (int i = 0; i < count; i++) made[j][i] += a.bias[row + i];
        put(row, at + j, made[j], count);
      }
    }
  }
}

template <class Put>
inline void product_of_few(const Matrix& a, long from, long to, const Acts& x, int n, Put put) {
  float made[MANY][RUN];
  for (long run = from; run < to; run += RUN) {
    const int count = to - run < RUN ? int(to - run) : RUN;
    for (int at = 0; at < n; at += 4) {
      const int m = n - at < 4 ? n - at : 4;
      for (int row = 0; row < count;) {
        float out[4][4];
        const int r = count - row >= 4 ? 4 : 1;
        if (r == 4)
          tile_m<4>(a, run + row, x, at, m, out);
        else
          tile_m<1>(a, run + row, x, at, m, out);
        for (int j = 0; j < m; j++)
          for (int i = 0; i < r; i++) made[at + j][row + i] = out[j][i];
        row += r;
      }
    }
    for (int m = 0; m < n; m++) {
      if (a.bias)
        for (int i = 0; i < count; i++) made[m][i] += a.bias[run + i];
      put(run, m, made[m], count);
    }
  }
}

// Calls put(row, m, values, count): the results of `count` weight rows from `row` on for activation row m.
template <class Put>
inline void product(const Matrix& a, long from, long to, const Acts& x, int n, Put put) {
  if (n < MANY) return product_of_few(a, from, to, x, n, put);
#if PLAIT_BF16
  if (a.kind != F32 && a.cols % 2 == 0) return product_of_many<uint16_t>(a, from, to, x, n, put);
#endif
  product_of_many<float>(a, from, to, x, n, put);
}

}  // namespace plait
