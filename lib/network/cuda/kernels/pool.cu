// Pooling: the max pool behind the ImageNet stem, and the mean over pixels that gives the pre-logits.

// 3x3, stride 2, over zero padding of 1; the zeros take part. Of the window's 9 taps, row by row, the first
// maximum gives the output, and `taps` keeps its number. Images are `[height, width, channels]`.
KERNEL max_pool(const Value *z, Value *out, u8 *taps, u32 groups, int height, int width, int channels) {
  u32 at = INDEX;
  if (at >= groups) return;
  u32 out_height = (height + 1) / 2, out_width = (width + 1) / 2, across = channels / LANE;
  u32 group = at % across, line = at / across / out_width, image = line / out_height;
  int x = at / across % out_width, y = line % out_height;
  Lane best = {{0}};
  u8 first[LANE];
  for (int t = 0; t < 9; t++) {
    int row = 2 * y + t / 3 - 1, column = 2 * x + t % 3 - 1;
    Lane v = {{0}};
    if (row >= 0 && row < height && column >= 0 && column < width)
      v = load(z, ((image * height + row) * width + column) * across + group);
    for (int k = 0; k < LANE; k++) {
      if (t == 0 || !(v.v[k] <= best.v[k])) {
        best.v[k] = v.v[k];
        first[k] = (u8)t;
      }
    }
  }
  store(out, at, best);
  u32 low = first[0] | first[1] << 8 | first[2] << 16 | (u32)first[3] << 24;
  u32 high = first[4] | first[5] << 8 | first[6] << 16 | (u32)first[7] << 24;
  ((uint2 *)taps)[at] = make_uint2(low, high);
}

// The gradient of the pool's input, of `groups` times 8 values: each takes what the up to 4 windows that it is
// in give to it.
KERNEL max_pool_back(const Value *gradient, const u8 *taps, Value *out, u32 groups, int height, int width,
                     int channels) {
  u32 at = INDEX;
  if (at >= groups) return;
  int out_height = (height + 1) / 2, out_width = (width + 1) / 2;
  u32 across = channels / LANE, group = at % across, line = at / across / width, image = line / height;
  int row = line % height, column = at / across % width;
  Lane sum = {{0}};
  for (int y = row / 2; y <= (row + 1) / 2; y++) {
    for (int x = column / 2; x <= (column + 1) / 2; x++) {
      if (y >= out_height || x >= out_width) continue;
      u32 from = ((image * out_height + y) * out_width + x) * across + group;
      u32 tap = (row + 1 - 2 * y) * 3 + column + 1 - 2 * x;
      Lane g = load(gradient, from);
      uint2 both = ((const uint2 *)taps)[from];
      for (int k = 0; k < LANE; k++)
        if (byte_of(both, k) == tap) sum.v[k] += g.v[k];
    }
  }
  store(out, at, sum);
}

// The tangent of the pool's output, of `groups` times 8 values: that of the tap which gave it, 0 for padding.
KERNEL max_pool_tangent(const Value *tangent, const u8 *taps, Value *out, u32 groups, int height, int width,
                        int channels) {
  u32 at = INDEX;
  if (at >= groups) return;
  u32 out_height = (height + 1) / 2, out_width = (width + 1) / 2, across = channels / LANE;
  u32 group = at % across, line = at / across / out_width, image = line / out_height;
  int x = at / across % out_width, y = line % out_height;
  uint2 of = ((const uint2 *)taps)[at];
  Lane lane = {{0}};
  for (int k = 0; k < LANE; k++) {
    int tap = byte_of(of, k), row = 2 * y + tap / 3 - 1, column = 2 * x + tap % 3 - 1;
    if (row >= 0 && row < height && column >= 0 && column < width) {
      i64 from = (i64)((image * height + row) * width + column) * channels;
      lane.v[k] = load_one(tangent + from + group * LANE + k);
    }
  }
  store(out, at, lane);
}

// Pre-logits `[n, channels]`: the mean over the pixels of each image of relu(norm(y)). `groups`: n * channels / 8.
KERNEL mean_pixels(const Value *y, const float *norm, float *features, u32 groups, int pixels, int channels) {
  u32 at = INDEX;
  if (at >= groups) return;
  u32 across = channels / LANE, group = at % across, image = at / across;
  Lane scale = vector(norm, SCALE, channels, group), shift = vector(norm, SHIFT, channels, group);
  Lane sum = {{0}};
  for (int p = 0; p < pixels; p++) {
    Lane v = load(y, (image * pixels + p) * across + group);
    for (int k = 0; k < LANE; k++) sum.v[k] += relu(normalized(v.v[k], scale.v[k], shift.v[k]));
  }
  for (int k = 0; k < LANE; k++) sum.v[k] *= 1.0f / pixels;
  store_floats(features, at, sum);
}

// The gradient of relu(norm(y)), of `groups` times 8 values, from that of the pre-logits.
KERNEL mean_pixels_back(const float *features, Value *gradient, u32 groups, int pixels, int channels) {
  u32 at = INDEX;
  if (at >= groups) return;
  u32 across = channels / LANE;
  Lane f = load_floats(features, at / across / pixels * across + at % across);
  for (int k = 0; k < LANE; k++) f.v[k] *= 1.0f / pixels;
  store(gradient, at, f);
}
