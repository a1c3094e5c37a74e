## s4l: from images, few of them labelled, to a classifier and a table of results.
##
##   make moam_step3      supervised training to compare with, joint training, pseudo labels, retraining, fine-tuning
##   make moam_step1      joint training only: rotation + VAT + entropy minimization
##   make moam_step2      retraining on the pseudo labels of step 1
##   make supervised_1p   supervised training on 1 % of the labels
##   make NAME_1p         any row below with 1 % of the labels, for example make moam_step3_1p
##   make supervised_10p  supervised training on 10 % of the labels
##   make pseudo_labels   training on the pseudo labels of supervised_10p
##   make vat             virtual adversarial training
##   make vat_entmin      the same with entropy minimization
##   make s4l_rotation    predicting rotations as a second task
##   make s4l_exemplar    recognizing patches of the same image as a second task
##   make distill         MOAM step 3 as the teacher of a smaller network
##   make fixmatch        FixMatch: confident predictions as labels of strongly augmented views
##   make NAME            any other recipe of the pipeline, NAME.toml, on 10 % of the labels
##   make table           all rows
##   make report          the table and the curves of the rows made so far
##   make tune ROW=NAME   a random search over the ranges in pipeline.mk, on the validation images
##   make test            the tests
##   make install         the programs and their shell completions, into PREFIX
##   make clean           remove the built programs; results stay (they are in OUT)
##   make toolchain       install Rust if it is absent or too old (every target that builds does this too)
##   make help            this text
##
## make NAME also makes everything that the row needs. Stages compare content, not times: an output of the same
## inputs, recipe and seed stays, any other is made again. A stage that was stopped (exit code 75) or killed
## continues from its checkpoint when the same make is run again. If another make is writing an output, this
## one waits. Variables are read from the command line only, not from the environment.
##
##   PIPELINE=fashion     fashion, smoke, cifar10, imagenet, or the path of a folder with your own recipes
##   DATA=FOLDER          images to use instead of the pipeline's own
##   OUT=runs/fashion     folder for all results
##   SEEDS="0 1 2"        one run of each row per seed (default: 0)
##   DEVICE=cpu           device to compute on: cpu, cuda, cuda:N or auto
##   RUN="srun -n1 --"    command that starts every stage; with it, -j runs rows and seeds side by side
##   MPI_RUN="mpirun -n 4"  command that starts the ranks of each training, in place of RUN (programs built with
##                        --features mpi: see docs/SCALE.md)
##   TRIALS=12            number of recipes that make tune draws
##   BIN=FOLDER           stage programs to use, instead of building them
##   PREFIX=/usr/local    folder to install into

MAKEFLAGS += --no-builtin-rules --no-builtin-variables
.DEFAULT_GOAL := help

VARIABLES := PIPELINE DATA OUT SEEDS DEVICE RUN MPI_RUN BIN PREFIX ROW TRIALS
# The environment may have variables of these names for other purposes.
$(foreach name,$(VARIABLES),$(if $(filter environment,$(firstword $(origin $(name)))),$(eval undefine $(name))))

# $(call text,NAME): the value of a variable; a dollar sign on the command line is taken literally.
is_given = $(filter command,$(firstword $(origin $1)))
text = $(if $(call is_given,$1),$(value $1),$($1))

# $(call check_path,NAME): refuses characters that mean something to make or the shell.
hash := \#
dollar := $$
open := (
close := )
empty :=
space := $(empty) $(empty)
odd = $(strip $(if $(word 2,$1)$(findstring $(space),$1),a space) \
	$(foreach c,: $(hash) % = ; | & < > * ? ! ~ [ ] { } ' " ` \ $(dollar) $(open) $(close),$(findstring $c,$1)))
check_path = $(if $(call odd,$(call text,$1)),$(error $1=$(call text,$1): make cannot use a path with $(call \
	odd,$(call text,$1)) in it; name another path, or a link to this one))$(if $(call text,$1),,$(error $1= is empty))

PIPELINE ?= fashion
$(call check_path,PIPELINE)
pipeline := $(if $(findstring /,$(PIPELINE)),$(PIPELINE:%/=%),pipelines/$(PIPELINE))
ifeq ($(wildcard $(pipeline)/pipeline.mk),)
$(error PIPELINE=$(PIPELINE): there is no $(pipeline)/pipeline.mk; name a folder of pipelines/, or a path with a slash)
endif
include $(pipeline)/pipeline.mk

# On one machine each stage uses all cores.
ifeq ($(strip $(value RUN)),)
.NOTPARALLEL:
endif

# A variable that nobody reads is a typing error. The variables of the pipeline may be given too.
KNOWN := $(VARIABLES) $(filter-out $(VARIABLES),$(shell sed -n 's/^\([A-Z0-9_]*\) *[:?]*=.*/\1/p' '$(pipeline)/pipeline.mk')) \
	CARGO_TARGET_DIR CARGO_HOME SHELL
unknown := $(filter-out $(KNOWN),$(foreach name,$(.VARIABLES),$(if $(call is_given,$(name)),$(name))))
ifneq ($(unknown),)
$(error $(firstword $(unknown))=$(value $(firstword $(unknown))): there is no such variable; there are $(KNOWN))
endif

# A recipe is a row of the table; if its name ends in _1p, it uses the smaller labelled set. The rows of the
# chains have inputs of their own, written out below; s4l-pretrain trains any other row on the labelled set.
chains := pseudo_labels moam_step1 moam_step2 moam_step3 distill
WRITTEN_OUT := $(chains) $(chains:%=%_1p)
recipes := $(sort $(basename $(notdir $(wildcard $(pipeline)/*.toml))))
PLAIN := $(filter-out $(WRITTEN_OUT),$(recipes))
ROWS := $(PLAIN) $(filter $(recipes),$(WRITTEN_OUT))
TARGETS := table report tune print test install clean toolchain help no-images FORCE
ifneq ($(filter $(TARGETS),$(ROWS)),)
$(error $(pipeline)/$(firstword $(filter $(TARGETS),$(ROWS))).toml: rename it, because another target has its name)
endif

ifeq ($(SUBSET_1P),)
$(if $(filter %_1p,$(ROWS)),$(error $(pipeline)/pipeline.mk: set SUBSET_1P, the labels of $(filter %_1p,$(ROWS)), \
	for example SUBSET_1P := --fraction 0.01))
endif

OUT ?= runs/$(notdir $(pipeline))
SEEDS ?= 0
DEVICE ?= cpu
$(call check_path,OUT)

digits := 0 1 2 3 4 5 6 7 8 9
strip_digits = $(if $2,$(call strip_digits,$(subst $(firstword $2),,$1),$(wordlist 2,10,$2)),$1)
seeds := $(sort $(call text,SEEDS))
no_seeds := $(strip $(foreach s,$(seeds),$(if $(call strip_digits,$s,$(digits))$(filter-out 0,$(filter 0%,$s)),$s)))
ifneq ($(if $(seeds),$(no_seeds),none),)
$(error SEEDS=$(call text,SEEDS): seeds are numbers, for example SEEDS="0 1 2")
endif

# ---- Programs: cargo knows what to rebuild; the stamp tells make when to ask cargo. All stages depend on the
# stamp order-only: a new build does not make results stale.

ifdef BIN
$(call check_path,BIN)
else
BIN := $(or $(CARGO_TARGET_DIR),target)/release
built := $(BIN)/.s4l-built
endif

# The folder into which rustup installs cargo, in case the shell's profile does not name it.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
rust_version = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
# The script behind https://sh.rustup.rs.
rustup := https://static.rust-lang.org/rustup/rustup-init.sh

define install_rust
@command -v cc >/dev/null || { echo 'no C compiler (cc): install one, on Debian: apt-get install gcc' >&2; exit 1; }
@have=$$(cargo --version 2>/dev/null | cut -d' ' -f2); \
if [ "$$(printf '%s\n' '$(rust_version)' "$$have" | sort -V | head -n1)" != '$(rust_version)' ]; then \
	echo "cargo is $${have:-absent}, at least $(rust_version) is needed: installing the stable Rust through rustup" >&2; \
	script=$$(mktemp) && trap 'rm -f "$$script"' EXIT && \
	{ curl -sSfo "$$script" $(rustup) || wget -qO "$$script" $(rustup); } && \
	RUSTUP_INIT_SKIP_PATH_CHECK=yes sh "$$script" -y --no-modify-path --profile minimal --default-toolchain stable; \
fi
endef

$(built): Cargo.toml Cargo.lock $(shell find lib bins -type f)
	$(install_rust)
	cargo build --release --locked
	@touch $@

# ---- Stages. S is the folder of one seed; its % is the seed, $* in commands.
#
# With --update a stage keeps an output of the same inputs, recipe and seed, and replaces any other. So each
# make runs all stages that a target needs, in order; the file times that make compares play no part.

S := $(OUT)/seed%
shards := $(OUT)/shards/dataset.json
held_out := $(if $(VAL_FRACTION),--val-fraction $(VAL_FRACTION),$(if $(VAL_PER_CLASS),--val-per-class $(VAL_PER_CLASS)))
val := $(if $(held_out),$S/val.parquet)

# s4l-shard must read all of its input to recognize it. So it runs only if the names, sizes or times of the
# files in DATA have changed since make last ran it; the name of DATA itself does not count. Shards that were
# not made by make are not replaced.
asked_for := $(OUT)/data.txt
data := $(if $(call text,DATA),'$(subst ','\'',$(call text,DATA))')

ifneq ($(data),)
$(shards): FORCE | $(built)
	@files=$$(find -L $(data) -type f -printf '%P %s %T@ %C@\n' 2>/dev/null | LC_ALL=C sort | cksum); \
	if ! test -e '$@' || test "$$files" != "$$(cat '$(asked_for)' 2>/dev/null)"; then \
		$(RUN) $(BIN)/s4l-shard --in $(data) --out '$(@D)' \
			$$(test -e '$@' && ! test -e '$(asked_for)' || echo --update) && \
		echo "$$files" >'$(asked_for)'; \
	fi
else ifeq ($(wildcard $(shards)),)
$(shards): no-images
endif

no-images:
	$(error PIPELINE=$(PIPELINE) has no images: name yours with make DATA=FOLDER)

# $(call subset,OPTIONS,FILE): a labelled subset. The validation images are the same for every subset.
subset = @$(RUN) $(BIN)/s4l-subset --in '$(OUT)/shards' $1 --out '$(@D)/$2' \
	$(if $(val),$(held_out) --val-out '$(@D)/val.parquet') --seed $* --update

$(if $(SUBSET_1P),$S/labelled_1p.parquet) $S/labelled_10p.parquet $(val): $(shards) FORCE | $(built)
	$(if $(SUBSET_1P),$(call subset,$(SUBSET_1P),labelled_1p.parquet))
	$(call subset,$(SUBSET_10P),labelled_10p.parquet)

# The images on which rows are compared: a split, or the validation images.
tested := $(if $(filter validation,$(TEST)),--split train --labelled '$(val)',--split $(or $(TEST),test))

# The files among the options of a stage. A model exists once its weights exist.
paths = $(filter $(OUT)/%,$(subst ',,$1))
files = $(patsubst %/model,%/model/model.safetensors,$(call paths,$1))
# The evaluations of the rows from which these files come.
evaluations = $(addsuffix eval.parquet,$(sort $(dir $(filter %/model %/labels.parquet,$(call paths,$1)))))

# $(call model,NAME,PROGRAM,INPUTS,FOLDER,SETTINGS,TESTED): a model by the recipe NAME, and its evaluation. The
# rows on which it builds are evaluated first, so that the table shows them too.
define model
$(patsubst %,$4/model/model.safetensors,$(seeds)): $4/model/model.safetensors: \
		$(call files,$3) $(val) $(shards) FORCE | $(built)
	@$$(or $$(MPI_RUN),$$(RUN)) $(BIN)/$2 --in '$(OUT)/shards' $(subst %,$$*,$3 $(val:%=--val '%')) \
		--recipe '$(pipeline)/$1.toml' $5 --out '$$(@D)' --seed $$* --device $(DEVICE) --update

$(patsubst %,$4/eval.parquet,$(seeds)): $4/eval.parquet: \
		$4/model/model.safetensors $(val) $(shards) FORCE | $(built) $(call evaluations,$3)
	@$$(RUN) $(BIN)/s4l-eval --in '$(OUT)/shards' $(subst %,$$*,$6) --model '$$(<D)' --out '$$@' \
		--seed $$* --device $(DEVICE) --update >/dev/null
endef

# $(call row,NAME,PROGRAM,INPUTS): a row of the table.
define row
$(eval program_$1 := $2)$(eval inputs_$1 := $3)
$(call model,$1,$2,$3,$S/$1,,$(tested))
endef

# $(call pseudo,NAME,LABELLED): the pseudo labels of a row's model.
define pseudo
$(seeds:%=$S/$1/labels.parquet): $S/$1/labels.parquet: \
		$S/$1/model/model.safetensors $S/$2.parquet $(shards) FORCE | $(built)
	@$$(RUN) $(BIN)/s4l-pseudolabel --in '$(OUT)/shards' --model '$$(<D)' \
		--labelled '$$(word 2,$$^)' --out '$$@' --seed $$* --device $(DEVICE) --update
endef

# $(call block,LABELLED,SUFFIX,NAMES,SUPERVISED,INIT): the rows that use one labelled set.
define block
$(foreach name,$3,$(eval $(call row,$(name),s4l-pretrain,--labelled '$S/$1.parquet')))
$(eval $(call pseudo,$4,$1))
$(eval $(call row,pseudo_labels$2,s4l-pretrain,--labelled '$S/$1.parquet' --labels '$S/$4/labels.parquet'))
$(eval $(call row,moam_step1$2,s4l-pretrain,--labelled '$S/$1.parquet' $(if $5,--init '$S/$5/model')))
# The table shows what MOAM is compared with.
$(if $(filter $4,$3),$(eval $(patsubst %,$S/moam_step1$2/eval.parquet,$(seeds)): $S/moam_step1$2/eval.parquet: | $S/$4/eval.parquet))
$(eval $(call pseudo,moam_step1$2,$1))
$(eval $(call row,moam_step2$2,s4l-moam --step retrain,--labels '$S/moam_step1$2/labels.parquet' --init '$S/moam_step1$2/model'))
$(eval $(call row,moam_step3$2,s4l-moam --step finetune,--labelled '$S/$1.parquet' --init '$S/moam_step2$2/model'))
$(eval $(call pseudo,moam_step3$2,$1))
$(eval $(call row,distill$2,s4l-moam --step distill,--labels '$S/moam_step3$2/labels.parquet'))
endef

$(eval $(call block,labelled_10p,,$(filter-out %_1p,$(PLAIN)),supervised_10p,$(MOAM_STEP1_INIT)))
$(eval $(call block,labelled_1p,_1p,$(filter %_1p,$(PLAIN)),supervised_1p,$(MOAM_STEP1_1P_INIT)))

# ---- make tune: the recipe of a row, and TRIALS recipes whose values are drawn from their ranges in
# pipeline.mk, TUNE_<row> := key=low:high.. The draws are log-uniform and keyed by row, key and trial number.

ifneq ($(filter tune,$(MAKECMDGOALS)),)
TRIALS ?= 12
$(if $(call strip_digits,$(TRIALS),$(digits)),$(error TRIALS=$(TRIALS): expected a number of recipes to draw))
ranges := $(TUNE_$(ROW))
$(if $(filter $(ROWS),$(ROW)),,$(error ROW=$(ROW): name a row of $(pipeline): $(ROWS)))
$(if $(ranges),,$(error $(pipeline)/pipeline.mk: set TUNE_$(ROW), the ranges to draw from, for example TUNE_$(ROW) := learning_rate=0.03:0.3))
$(if $(val),,$(error $(pipeline)/pipeline.mk: set VAL_PER_CLASS or VAL_FRACTION to hold out images to tune on))

# One word per trial: key=value,key=value.
define draw
for trial in $$(seq $(TRIALS)); do \
	for range in $(ranges); do \
		key=$${range%%=*}; bounds=$${range#*=}; \
		drawn=$$(printf '%s %s %s' '$(ROW)' "$$key" "$$trial" | sha256sum | cut -c1-8); \
		echo "$$key $${bounds%:*} $${bounds#*:} $$((0x$$drawn))"; \
	done | awk '{ v = $$2 * exp(log($$3 / $$2) * $$4 / 4294967296); \
		printf "%s%s=%.3g", (NR > 1 ? "," : ""), $$1, v } END { print "" }'; \
done
endef
trials := $(shell $(draw))
comma := ,
trial_folder = $(tuned)/seed%/$(subst =,_,$(subst $(comma),_,$1))
tuned := $(OUT)-tune/$(ROW)
trial = $(call model,$(ROW),$(program_$(ROW)),$(inputs_$(ROW)),$(trial_folder),$2,--split train --labelled '$(val)')
$(eval $(call trial,recipe))
$(foreach t,$(trials),$(eval $(call trial,$t,$(foreach s,$(subst $(comma), ,$t),-s $s))))

tune: $(foreach t,recipe $(trials),$(patsubst %,$(call trial_folder,$t)/eval.parquet,$(seeds))) | $(built)
	@$(RUN) $(BIN)/s4l-report --in '$(tuned)' --out '$(tuned)/report' --update
endif

# ---- The targets for people. The report covers every row that exists, but only the rows named on the command
# line are brought up to date for it.

asked := $(if $(filter table,$(MAKECMDGOALS)),$(ROWS),$(filter $(ROWS),$(MAKECMDGOALS)))
report := $(OUT)/report/index.html

$(report): $(foreach name,$(asked),$(seeds:%=$S/$(name)/eval.parquet)) FORCE | $(built)
	@$(RUN) $(BIN)/s4l-report --in '$(OUT)' --out '$(@D)' --update >/dev/null

$(ROWS) table report: print
print: $(report)
	@cat '$(<D)/table.md'

test:
	$(install_rust)
	cargo test --release --locked

PREFIX ?= /usr/local
$(call check_path,PREFIX)
prefix := $(DESTDIR)$(PREFIX)

install: | $(built)
	@set -e; cd '$(BIN)'; for program in $(basename $(notdir $(wildcard bins/*.rs))); do \
		install -D -m 755 $$program '$(prefix)/bin/'$$program; \
		for at in bash:bash-completion/completions/$$program zsh:zsh/site-functions/_$$program \
				fish:fish/vendor_completions.d/$$program.fish; do \
			./$$program --completions $${at%%:*} | install -D -m 644 /dev/stdin '$(prefix)/share/'$${at#*:}; \
		done; \
	done
	@echo 'installed in $(prefix)'

clean:
	cargo clean

toolchain:
	$(install_rust)

help:
	@sed -n 's/^## \{0,1\}//p' '$(firstword $(MAKEFILE_LIST))'

FORCE:
.PHONY: $(ROWS) $(TARGETS)
