// Batch norm on the way forward: statistics of a convolution's output, and what is made with them.

// The moments of a block's rows, `[parts][3, channels]`: a value around which they are taken, the sum of what
// differs from it, the sum of its square. Around 0, the variance of values far from it would be lost.
DEVICE void moments(Share s, Lane around, Lane sum, Lane square, float *room, float *partial) {
  float *out = partial + (i64)s.part * 3 * s.groups * LANE;
  if (s.row == s.first) store_floats(out, s.group, around);
  fold(s, sum, square, room, out + s.groups * LANE);
}

DEVICE void add_moments(Lane z, Lane around, Lane *sum, Lane *square) {
  for (int k = 0; k < LANE; k++) {
    float d = z.v[k] - around.v[k];
    sum->v[k] += d;
    square->v[k] = fmaf(d, d, square->v[k]);
  }
}

// Moments of z `[rows, channels]`.
KERNEL bn_stats(const Value *z, float *partial, int rows, int channels, int rows_per_block) {
  SHARED(float, room, 2 * LANE * THREADS);
  Share s = share(rows, channels, rows_per_block);
  Lane around = {{0}}, sum = {{0}}, square = {{0}};
  if (s.row < s.end) around = load(z, (i64)s.first * s.groups + s.group);
  for (int r = s.row; r < s.end; r += s.depth)
    add_moments(load(z, (i64)r * s.groups + s.group), around, &sum, &square);
  moments(s, around, sum, square, room, partial);
}

// The residual sum z += added, and its moments.
KERNEL add_stats(Value *z, const Value *added, float *partial, int rows, int channels, int rows_per_block) {
  SHARED(float, room, 2 * LANE * THREADS);
  Share s = share(rows, channels, rows_per_block);
  Lane around = {{0}}, sum = {{0}}, square = {{0}};
  // Its row is of another thread of this block, which has not written it before this one has read it.
  if (s.row < s.end) {
    i64 at = (i64)s.first * s.groups + s.group;
    Lane a = load(z, at), b = load(added, at);
    for (int k = 0; k < LANE; k++) around.v[k] = a.v[k] + b.v[k];
  }
  SYNC();
  for (int r = s.row; r < s.end; r += s.depth) {
    i64 at = (i64)r * s.groups + s.group;
    Lane a = load(z, at), b = load(added, at);
    for (int k = 0; k < LANE; k++) a.v[k] += b.v[k];
    store(z, at, a);
    add_moments(load(z, at), around, &sum, &square);
  }
  moments(s, around, sum, square, room, partial);
}

// Channels and parts of the rows that a block of the finishing kernels takes at once.
#define CHANNELS 16
#define PARTS (THREADS / CHANNELS)

// The sum of PARTS values of a channel, in their order.
DEVICE double in_order(const double *values) {
  double sum = 0.0;
  for (int p = 0; p < PARTS; p++) sum += values[p * CHANNELS];
  return sum;
}

DEVICE void set_norm(float *norm, int channels, int c, double mean, double variance, float gamma, float beta,
                     double epsilon) {
  double inverse = 1.0 / sqrt(variance + epsilon);
  norm[MEAN * channels + c] = (float)mean;
  norm[INVERSE * channels + c] = (float)inverse;
  norm[SCALE * channels + c] = (float)(gamma * inverse);
  norm[SHIFT * channels + c] = (float)(beta - mean * inverse * gamma);
}

// The norm from the moments of all parts. If `moving` is given, `[2, channels]` of mean and variance, it keeps
// this share of itself; its variance is the unbiased one.
KERNEL bn_finish(const float *partial, const float *gamma, const float *beta, float *norm, float *moving,
                 int rows, int channels, int rows_per_block, float keep, double epsilon) {
  SHARED(double, sums, THREADS);
  SHARED(double, squares, THREADS);
  int c = BLOCK * CHANNELS + THREAD % CHANNELS, part = THREAD / CHANNELS;
  double center = 0.0, sum = 0.0, square = 0.0;
  if (c < channels) {
    // All moments are taken to the first part's value.
    center = partial[c];
    int parts = (rows + rows_per_block - 1) / rows_per_block;
    for (int p = part; p < parts; p += PARTS) {
      const float *of = partial + (i64)p * 3 * channels + c;
      int left = rows - p * rows_per_block;
      double count = left < rows_per_block ? left : rows_per_block;
      double off = of[0] - center;
      sum += of[channels] + count * off;
      square += of[2 * channels] + off * (2.0 * of[channels] + count * off);
    }
  }
  sums[THREAD] = sum;
  squares[THREAD] = square;
  SYNC();
  if (part > 0 || c >= channels) return;
  double off = in_order(sums + THREAD) / rows;
  double mean = center + off;
  double variance = in_order(squares + THREAD) / rows - off * off;
  if (variance < 0.0) variance = 0.0;
  set_norm(norm, channels, c, mean, variance, gamma[c], beta[c], epsilon);
  if (moving) {
    double unbiased = variance * (rows / (rows > 1 ? rows - 1.0 : 1.0));
    moving[c] = keep * moving[c] + (1.0f - keep) * (float)mean;
    moving[channels + c] = keep * moving[channels + c] + (1.0f - keep) * (float)unbiased;
  }
}

// The norm from the moving statistics.
KERNEL bn_moving(const float *moving, const float *gamma, const float *beta, float *norm, int channels,
                 double epsilon) {
  int c = (int)INDEX;
  if (c < channels) set_norm(norm, channels, c, moving[c], moving[channels + c], gamma[c], beta[c], epsilon);
}

// a = relu(norm(z)), both of `groups` times 8 values.
KERNEL bn_relu(const Value *z, const float *norm, Value *a, u32 groups, int channels) {
  u32 at = INDEX;
  if (at >= groups) return;
  int group = at % (channels / LANE);
  Lane scale = vector(norm, SCALE, channels, group), shift = vector(norm, SHIFT, channels, group);
  Lane x = load(z, at);
  for (int k = 0; k < LANE; k++) x.v[k] = relu(normalized(x.v[k], scale.v[k], shift.v[k]));
  store(a, at, x);
}
