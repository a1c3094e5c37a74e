// A GPU's threads on the CPU, for the kernels in lib/network/cuda/kernels: the threads of a block run in turn,
// each as far as the next barrier (a fiber); blocks run one after the other.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define S4L_HOST
#define KERNEL static void
#define DEVICE static inline __attribute__((unused))
#define SHARED(T, name, n) T *name = (T *)host_shared(sizeof(T) * (n))
#define SYNC() host_sync()
#define BLOCK host_block
#define THREAD host_thread

typedef struct { unsigned x, y; } __attribute__((aligned(8))) uint2;
typedef struct { unsigned x, y, z, w; } __attribute__((aligned(16))) uint4;
typedef struct { float x, y, z, w; } __attribute__((aligned(16))) float4;
static inline uint2 make_uint2(unsigned x, unsigned y) { uint2 v = {x, y}; return v; }
static inline float float_of(unsigned bits) { float v; memcpy(&v, &bits, 4); return v; }
static inline unsigned bits_of(float value) { unsigned v; memcpy(&v, &value, 4); return v; }
static inline __attribute__((unused)) unsigned round_bf16(float value) {
  unsigned bits = bits_of(value);
  if (value != value) return bits >> 16 | 64;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

enum { HOST_THREADS = 256, HOST_STACK = 32 << 10, HOST_SHARED = 48 << 10 };
static _Thread_local int host_block, host_thread;
// Of a block with barriers.
static _Thread_local ucontext_t host_home, host_fibers[HOST_THREADS];
static _Thread_local char host_done[HOST_THREADS], *host_stacks;
static _Thread_local size_t host_used;
static _Thread_local char host_room[HOST_SHARED] __attribute__((aligned(16)));
static _Thread_local void (*host_body)(void **);
static _Thread_local void **host_arguments;

// Every thread asks in the same order.
static inline __attribute__((unused)) void *host_shared(size_t bytes) {
  void *at = host_room + host_used;
  host_used += (bytes + 15) / 16 * 16;
  if (host_used > HOST_SHARED) abort();
  return at;
}

static inline __attribute__((unused)) void host_sync(void) {
  int thread = host_thread;
  swapcontext(&host_fibers[thread], &host_home);
  host_thread = thread;
}

static void host_enter(void) {
  int thread = host_thread;
  host_body(host_arguments);
  host_done[thread] = 1;
}

// Runs the threads of a block in ascending or descending order. Returns 1 if some ended before a barrier that
// others came to.
static int host_block_of(int barriers, int descending) {
  if (!barriers) {
    for (int i = 0; i < HOST_THREADS; i++) {
      host_thread = descending ? HOST_THREADS - 1 - i : i;
      host_body(host_arguments);
    }
    return 0;
  }
  if (!host_stacks) host_stacks = malloc((size_t)HOST_THREADS * HOST_STACK);
  memset(host_done, 0, sizeof host_done);
  memset(host_room, 0xff, sizeof host_room);
  for (int t = 0; t < HOST_THREADS; t++) {
    getcontext(&host_fibers[t]);
    host_fibers[t].uc_stack.ss_sp = host_stacks + (size_t)t * HOST_STACK;
    host_fibers[t].uc_stack.ss_size = HOST_STACK;
    host_fibers[t].uc_link = &host_home;
    makecontext(&host_fibers[t], host_enter, 0);
  }
  for (;;) {
    int ended = 0;
    for (int i = 0; i < HOST_THREADS; i++) {
      host_thread = descending ? HOST_THREADS - 1 - i : i;
      host_used = 0;
      int thread = host_thread;
      swapcontext(&host_home, &host_fibers[thread]);
      ended += host_done[thread];
    }
    if (ended) return ended < HOST_THREADS;
  }
}

static int host_run(void (*body)(void **), void **arguments, unsigned blocks, int barriers, int descending) {
  host_body = body;
  host_arguments = arguments;
  for (unsigned b = 0; b < blocks; b++) {
    host_block = (int)(descending ? blocks - 1 - b : b);
    if (host_block_of(barriers, descending)) return 1;
  }
  return 0;
}
