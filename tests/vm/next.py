"""svd and dm-sv.ko as a next version may be, built from a mutated copy of the sources: uapi's structs have grown, there
is one more feature bit and one more op, and svd uses the op where the bit is set. What t_abi.py runs beside this tree's."""

import hashlib
import os
import re
import shutil
import subprocess

import vm

SOURCES = ["Makefile", "mk", "kmod", "daemon"]
GROWN = ["sv_hello", "sv_attach", "sv_state", "sv_member_state", "sv_extent", "sv_partial_bits", "sv_volume_info",
         "sv_map_entry", "sv_grant", "sv_freed", "sv_policy", "sv_event", "sv_histogram", "sv_snapshot", "sv_own", "sv_fold",
         "sv_activate", "sv_trim", "sv_journal_pos"]

# file, text, replacement
MUTATIONS = [
    ("kmod/uapi/sv.h", "	SV_OP_DUMP_MAP,", "	SV_OP_NEXT = 40,	/* out sv_next */\n	SV_OP_DUMP_MAP = SV_OP_DUMP_PARTIALS + 1,"),
    ("kmod/uapi/sv.h", "struct sv_hello {", "#define SV_FEATURE_NEXT (1ull << 40)\nstruct sv_next {\n	__u64	answer;\n};\n\nstruct sv_hello {"),
    ("kmod/core/cmd.c", "	h->features = SV_FEATURE_KNOWN |", "	h->next = 1;\n	h->features = SV_FEATURE_NEXT | SV_FEATURE_KNOWN |"),
    ("kmod/core/latency.h", "sizeof(struct sv_histogram) == 472", "sizeof(struct sv_histogram) == 480"),
    ("kmod/core/cmd.c", "/* ---- dispatch ---- */", """static int op_next(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	((struct sv_next *)payload)->answer = 42;
	*count = 1;
	return 0;
}
"""),
    ("kmod/core/cmd.c", "	[SV_OP_DUMP_MAP]	=", "	[SV_OP_NEXT]		= { sizeof(struct sv_next), true, ANY, op_next },\n	[SV_OP_DUMP_MAP]	="),
    # Fields that the caller sets must arrive as zero from an older one.
    ("kmod/core/cmd.c", "	if (*count != 1 || y->commit_ms < SV_COMMIT_MS_MIN", "	if (y->next || *count != 1 || y->commit_ms < SV_COMMIT_MS_MIN"),
    ("kmod/core/cmd.c", "	if (*count != 1 || !j->next_seq", "	if (j->next || *count != 1 || !j->next_seq"),
    ("kmod/core/cmd.c", "	if (*count != 1 || a->read_only > 1", "	if (a->next || *count != 1 || a->read_only > 1"),
    ("kmod/core/cmd.c", "	if (t->seq >= p->next_seq)", "	if (t->next || t->seq >= p->next_seq)"),
    ("kmod/core/cmd.c", "	if (sv_xw_gen(*w) == x->gen)\n		free_word(", "	if (x->next)\n		return -EINVAL;\n	if (sv_xw_gen(*w) == x->gen)\n		free_word("),
    ("kmod/core/cmd.c", "	return sv_snapshot_begin(", "	return ((struct sv_snapshot *)payload)->next ? -EINVAL : sv_snapshot_begin("),
    ("kmod/core/cmd.c", "		r = sv_volume_own(", "		r = o[*done].next ? -EINVAL : sv_volume_own("),
    ("kmod/core/cmd.c", "		return sv_fold_begin(", "		return ((struct sv_fold *)payload)->next ? -EINVAL : sv_fold_begin("),
    ("daemon/engine/recovery.cc", "	channel_->set_epoch(attach.epoch);\n	SV_ASSIGN(const sv_ring_cursor applied", """	channel_->set_epoch(attach.epoch);
	if ((hello.features & SV_FEATURE_NEXT) != 0) {
		SV_ASSIGN(const auto next, channel_->ask<sv_next>(SV_OP_NEXT));
		log::notice("next svd, next module: {} {}", next.answer, hello.next);
	} else {
		log::notice("next svd, present module: {}", hello.next);
	}
	SV_ASSIGN(const sv_ring_cursor applied"""),
]


def replace(top, path, old, new):
    path = os.path.join(top, path)
    with open(path, encoding="utf-8") as f:
        text = f.read()
    if text.count(old) != 1:
        raise vm.Failure(f"{path}: the mutation does not apply any more: {old}")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace(old, new))


def grow(text, name):
    grown, n = re.subn(rf"(struct {name} {{.*?)\n}};", r"\1\n\t__u64\tnext;\n};", text, count=1, flags=re.S)
    if n != 1:
        raise vm.Failure(f"no struct {name} in uapi")
    return grown


def mutate(top):
    for path, old, new in MUTATIONS:
        replace(top, path, old, new)
    header = os.path.join(top, "kmod/uapi/sv.h")
    with open(header, encoding="utf-8") as f:
        text = f.read()
    for name in GROWN:
        text = grow(text, name)
    with open(header, "w", encoding="utf-8") as f:
        f.write(text)


def files():
    return sorted(subprocess.run(["mk/files.sh", *SOURCES], cwd=vm.REPO, check=True, stdout=subprocess.PIPE, text=True).stdout.split())


def key(names, kernel):
    digest = hashlib.sha256(kernel.release.encode())
    for name in [*names, os.path.relpath(__file__, vm.REPO)]:
        with open(os.path.join(vm.REPO, name), "rb") as f:
            digest.update(name.encode() + f.read())
    return digest.hexdigest()[:16]


def build(kernel):
    """(svd, dm-sv.ko) of the next version; once for each state of the sources."""
    names = files()
    place = os.path.join(vm.BUILD, "next")
    with vm.locked(place + ".lock"):
        top = os.path.join(place, key(names, kernel))
        if not os.path.exists(os.path.join(top, "complete")):
            shutil.rmtree(place, ignore_errors=True)
            for name in names:
                os.makedirs(os.path.dirname(os.path.join(top, name)), exist_ok=True)
                shutil.copy(os.path.join(vm.REPO, name), os.path.join(top, name))
            mutate(top)
            compile_all(top, kernel)
            with open(os.path.join(top, "complete"), "w", encoding="ascii"):
                pass
    return (os.path.join(top, "build/bin/svd"), os.path.join(top, f"build/kmod/{kernel.release}/dm-sv.ko"))


def compile_all(top, kernel):
    # Of a make that runs the tests it would inherit flags and a job server.
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    subprocess.run(["make", "-C", top, "-s", f"-j{os.cpu_count()}", "daemon", "kmod-module", "KERNEL_DIR=" + kernel.dir,
                    "KMOD_FLAGS=", "SVD_CXXFLAGS=$(CPPFLAGS) -O0 -w -std=c++20 -I.",
                    "CORE_CFLAGS=-std=gnu11 -O2 -w -fno-strict-aliasing"], check=True, env=environment)
