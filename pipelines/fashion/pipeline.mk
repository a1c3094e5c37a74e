# Fashion-MNIST: 20,000 + 10,000 grey images of 28 x 28 that come with the project.
DATA ?= $(pipeline)/data

# Labelled images, 20 and 200 of each class, and images held out for validation.
SUBSET_1P := --fraction 0.01
SUBSET_10P := --fraction 0.1
VAL_PER_CLASS := 300

# The paper trains step 1 from scratch; so few steps need a start.
MOAM_STEP1_INIT := supervised_10p
