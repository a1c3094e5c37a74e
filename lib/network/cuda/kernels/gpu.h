// What the kernels share. They are C: NVRTC compiles them as C++ for a GPU; for the tests a C compiler does,
// with S4L_HOST and definitions of the words of this first part (tests/common/gpu.h).
#ifndef S4L_HOST
#pragma nv_diag_suppress 177  // not every source calls every function
#define KERNEL extern "C" __global__ void
#define DEVICE static __device__ __forceinline__
#define SHARED(T, name, n) __shared__ T name[n]
#define SYNC() __syncthreads()
#define BLOCK ((int)blockIdx.x)
#define THREAD ((int)threadIdx.x)
#define float_of(bits) __uint_as_float(bits)
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;

// Threads of every block, and the channels that a thread takes: 16 bytes in bfloat16.
#define THREADS 256
#define LANE 8

// The number of this thread among those of all blocks. Counts have 31 bits, since divisions of 64 bits are slow.
#define INDEX ((u32)BLOCK * THREADS + THREAD)

// Values as they are stored, and 8 of them in registers.
#ifdef S4L_BF16
typedef u16 Value;
#else
typedef float Value;
#endif
typedef struct { float v[LANE]; } Lane;

// Of 8 bytes, the k-th.
DEVICE u32 byte_of(uint2 bytes, int k) { return (k < 4 ? bytes.x : bytes.y) >> 8 * (k % 4) & 255; }

#ifdef S4L_BF16
// Two values rounded to the nearest, ties to even; the first one in the low half.
DEVICE u32 pack(float low, float high) {
#ifdef S4L_HOST
  return round_bf16(low) | round_bf16(high) << 16;
#else
  u32 both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#endif
}

// `at` counts groups of 8 values.
DEVICE Lane load(const Value *values, i64 at) {
  uint4 q = ((const uint4 *)values)[at];
  u32 words[4] = {q.x, q.y, q.z, q.w};
  Lane lane;
  for (int k = 0; k < 4; k++) {
    lane.v[2 * k] = float_of(words[k] << 16);
    lane.v[2 * k + 1] = float_of(words[k] & 0xffff0000u);
  }
  return lane;
}

DEVICE void store(Value *values, i64 at, Lane lane) {
  uint4 q;
  q.x = pack(lane.v[0], lane.v[1]);
  q.y = pack(lane.v[2], lane.v[3]);
  q.z = pack(lane.v[4], lane.v[5]);
  q.w = pack(lane.v[6], lane.v[7]);
  ((uint4 *)values)[at] = q;
}

DEVICE float load_one(const Value *value) { return float_of((u32)*value << 16); }
DEVICE void store_one(Value *to, float value) { *to = (u16)pack(value, 0.0f); }
#else
DEVICE Lane load_floats(const float *values, i64 at);
DEVICE void store_floats(float *values, i64 at, Lane lane);
DEVICE Lane load(const Value *values, i64 at) { return load_floats(values, at); }
DEVICE void store(Value *values, i64 at, Lane lane) { store_floats(values, at, lane); }
DEVICE float load_one(const Value *value) { return *value; }
DEVICE void store_one(Value *to, float value) { *to = value; }
#endif

DEVICE Lane load_floats(const float *values, i64 at) {
  float4 a = ((const float4 *)values)[2 * at], b = ((const float4 *)values)[2 * at + 1];
  Lane lane = {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
  return lane;
}

DEVICE void store_floats(float *values, i64 at, Lane lane) {
  float4 a, b;
  a.x = lane.v[0], a.y = lane.v[1], a.z = lane.v[2], a.w = lane.v[3];
  b.x = lane.v[4], b.y = lane.v[5], b.z = lane.v[6], b.w = lane.v[7];
  ((float4 *)values)[2 * at] = a;
  ((float4 *)values)[2 * at + 1] = b;
}

// A batch norm's vectors, each of `channels` float32, one after the other: batch mean, 1 / deviation; norm(z)
// = z * SCALE + SHIFT; and of the way back, dz = gradient * OF_GRADIENT + z * OF_VALUE + ONE.
enum { MEAN, INVERSE, SCALE, SHIFT, OF_GRADIENT, OF_VALUE, ONE, VECTORS };

// One vector of a norm, for the `group`-th 8 channels.
DEVICE Lane vector(const float *norm, int which, int channels, int group) {
  return load_floats(norm + (i64)which * channels, group);
}

// norm(z), the same bits in every kernel: its sign is the ReLU's.
DEVICE float normalized(float z, float scale, float shift) { return fmaf(z, scale, shift); }

// A NaN stays one.
DEVICE float relu(float x) { return x < 0.0f ? 0.0f : x; }

// How a block takes part in sums per channel over all rows (pixels of all images). A block has some rows and
// up to 32 groups of 8 channels; of its threads, `lanes` neighbours take the groups of a row, and so `depth`
// rows at once.
typedef struct {
  int groups, lanes, depth;
  int part;         // which part of the rows
  int first, end;   // its rows
  int group, row;   // this thread's group of channels and first row; none if `row` is not below `end`
} Share;

DEVICE Share share(int rows, int channels, int rows_per_block) {
  Share s;
  s.groups = channels / LANE;
  s.lanes = s.groups < 32 ? s.groups : 32;
  s.depth = THREADS / s.lanes;
  int across = (s.groups + s.lanes - 1) / s.lanes;
  s.part = BLOCK / across;
  s.first = s.part * rows_per_block;
  s.end = rows - s.first < rows_per_block ? rows : s.first + rows_per_block;
  s.group = BLOCK % across * s.lanes + THREAD % s.lanes;
  s.row = s.first + THREAD / s.lanes;
  if (s.group >= s.groups || THREAD / s.lanes >= s.depth) s.row = s.end;
  return s;
}

// Adds up two sums per channel of the block's threads, in the order of rows. `room` has 2 * 8 * THREADS values,
// and out `[2, channels]`.
DEVICE void fold(Share s, Lane first, Lane second, float *room, float *out) {
  for (int k = 0; k < LANE; k++) {
    room[k * THREADS + THREAD] = first.v[k];
    room[(LANE + k) * THREADS + THREAD] = second.v[k];
  }
  SYNC();
  int start = s.group - THREAD % s.lanes;
  for (int i = THREAD; i < 2 * LANE * s.lanes; i += THREADS) {
    int lane = i % s.lanes, k = i / s.lanes;
    if (start + lane >= s.groups) continue;
    float sum = 0.0f;
    for (int d = 0; d < s.depth; d++) sum += room[k * THREADS + d * s.lanes + lane];
    out[(k / LANE) * s.groups * LANE + (start + lane) * LANE + k % LANE] = sum;
  }
}
