// Images: into the network, VAT's moves, and the gradient out of it.

// Images of float32 as they are stored, with `padded` channels; those past `channels` are 0. `groups`: pixels
// of all images times padded / 8.
KERNEL images_in(const float *images, Value *out, u32 groups, int channels, int padded) {
  u32 at = INDEX;
  if (at >= groups) return;
  int across = padded / LANE, first = at % across * LANE;
  i64 pixel = at / across;
  Lane lane = {{0}};
  for (int k = 0; k < LANE; k++)
    if (first + k < channels) lane.v[k] = images[pixel * channels + first + k];
  store(out, at, lane);
}

// The gradient of the images without the channels of padding. `values`: those of all images.
KERNEL images_out(const Value *gradient, float *out, u32 values, int channels, int padded) {
  u32 at = INDEX;
  if (at < values) out[at] = load_one(gradient + (i64)(at / channels) * padded + at % channels);
}

// The larger value; a NaN stays one.
DEVICE float larger(float a, float b) { return a > b || a != a ? a : b; }

// Moves each `every`-th image by a length along its direction, and leaves it if that is 0. Without images it is
// the move itself, which may take the direction's place. One block an image of so many values.
KERNEL move_images(const float *images, const float *direction, float *moved, int values, int every,
                   double length) {
  SHARED(float, largest, THREADS);
  SHARED(double, squares, THREADS);
  direction += (i64)BLOCK * values;
  moved += (i64)BLOCK * values;
  // Scaled by the largest value first, so that the squares of tiny gradients do not underflow.
  float most = 0.0f;
  for (int i = THREAD; i < values; i += THREADS) most = larger(most, fabsf(direction[i]));
  largest[THREAD] = most;
  SYNC();
  for (int t = 0; t < THREADS; t++) most = larger(most, largest[t]);
  double square = 0.0;
  if (most != 0.0f) {
    for (int i = THREAD; i < values; i += THREADS) {
      double part = direction[i] / most;
      square += part * part;
    }
  }
  squares[THREAD] = square;
  SYNC();
  double sum = 0.0;
  for (int t = 0; t < THREADS; t++) sum += squares[t];
  double factor = length / sqrt(sum);
  for (int i = THREAD; i < values; i += THREADS) {
    float from = images ? images[(i64)BLOCK * every * values + i] : 0.0f;
    moved[i] = most == 0.0f ? from : from + (float)(factor * (direction[i] / most));
  }
}
