# 400 + 200 images of Fashion-MNIST and a few steps a row: shows that the chain works, nothing more.
DATA ?= $(pipeline)/data

# 1 % of 40 images a class is none: 2 and 10 of each class.
SUBSET_1P := --per-class 2
SUBSET_10P := --per-class 10
VAL_PER_CLASS := 5

MOAM_STEP1_INIT := supervised_10p
