# ILSVRC-2012. It has to be asked for at image-net.org, so there is no default DATA.

# 13,000 and 128,000 labelled images, as many as the paper's label lists have. The lists themselves are
# in google-research/s4l: make SUBSET_1P='--list label_map_count_13000_index_0', and 10P likewise.
SUBSET_1P := --per-class 13
SUBSET_10P := --per-class 128

# The published runs train on all images and hold none out. To tune: make VAL_PER_CLASS=50.
VAL_PER_CLASS :=

# Step 1 starts from scratch.
MOAM_STEP1_INIT :=
