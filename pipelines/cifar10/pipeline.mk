# CIFAR-10: 50,000 + 10,000 images of 32 x 32 in 10 classes. It has no licence text, so it does not come with the
# project: make PIPELINE=cifar10 DATA=cifar-10-batches-bin, the binary version, or a folder of images.

# Labelled images, 50 and 500 of each class, and images held out for validation.
SUBSET_1P := --fraction 0.01
SUBSET_10P := --fraction 0.1
VAL_PER_CLASS := 500

# Step 1 starts from scratch, as in the paper.
MOAM_STEP1_INIT :=

# Ranges of make tune: a third to three times the paper's weights and eps.
TUNE_vat := weight_vat=0.33:3 vat_eps=13:120
TUNE_vat_1p := weight_vat=0.33:3 vat_eps=13:120
TUNE_vat_entmin := weight_vat=0.33:3 weight_entmin=0.33:3 vat_eps=13:120
TUNE_vat_entmin_1p := weight_vat=0.33:3 weight_entmin=0.33:3 vat_eps=13:120
TUNE_s4l_rotation := weight_rotation=0.33:3
TUNE_s4l_rotation_1p := weight_rotation=0.33:3
TUNE_s4l_exemplar := weight_exemplar=0.33:3
TUNE_s4l_exemplar_1p := weight_exemplar=0.33:3
TUNE_moam_step1 := weight_rotation=0.23:2.1 weight_vat=0.1:0.9 weight_entmin=0.1:0.9 vat_eps=11:96
TUNE_moam_step1_1p := weight_rotation=0.23:2.1 weight_vat=0.1:0.9 weight_entmin=0.1:0.9 vat_eps=11:96
