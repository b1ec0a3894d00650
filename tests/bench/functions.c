// A plugin of QEMU's translator: how often each block of the guest's kernel ran, between the two marks that stamp.c
// leaves around a job of fio.
//     -plugin functions.so,out=FILE     for each job a line "job", then lines "ADDRESS INSTRUCTIONS"; 0: user space
// One CPU only. Debian packages no header for plugins: what is used of its version 4 is declared here.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translated)(uint64_t id, struct qemu_plugin_tb *tb);
typedef void (*executed)(unsigned int cpu, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, translated done);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, executed done, int flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, executed done, int flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t at);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *data, size_t length);
int qemu_plugin_install(uint64_t id, const void *about, int argc, char **argv);

int qemu_plugin_version = 4;

// Blocks that begin at one address. Their lengths may differ from one translation to the next.
struct block {
	struct block *next;
	uint64_t address, instructions;
};

struct piece {	// of a translation
	struct block *block;
	uint64_t length;
};

enum { BUCKETS = 1 << 16, MARK_SIZE = 8 };

static struct block *buckets[BUCKETS];
static FILE *out;

static struct block *block_at(uint64_t address)
{
	struct block **bucket = &buckets[(address ^ address >> 16) % BUCKETS];
	struct block *block = *bucket;

	while (block && block->address != address)
		block = block->next;
	if (!block) {
		block = calloc(1, sizeof(*block));
		block->address = address;
		block->next = *bucket;
		*bucket = block;
	}
	return block;
}

static void count(unsigned int cpu, void *data)
{
	struct piece *piece = data;

	(void)cpu;
	piece->block->instructions += piece->length;
}

static void begin(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	for (int i = 0; i < BUCKETS; i++)
		for (struct block *block = buckets[i]; block; block = block->next)
			block->instructions = 0;
}

static void end(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	fprintf(out, "job\n");
	for (int i = 0; i < BUCKETS; i++)
		for (struct block *block = buckets[i]; block; block = block->next)
			if (block->instructions)
				fprintf(out, "%llx %llu\n", (unsigned long long)block->address,
					(unsigned long long)block->instructions);
	fflush(out);
}

// MARK_BEGIN and MARK_END of stamp.c.
static void look_for_marks(const struct qemu_plugin_tb *tb)
{
	static const unsigned char mark[MARK_SIZE - 1] = {0x0f, 0x1f, 0x84, 0x00, 'B', 'v', 's'};

	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		unsigned char code[MARK_SIZE];

		if (qemu_plugin_insn_size(insn) != MARK_SIZE || qemu_plugin_insn_data(insn, code, MARK_SIZE) != MARK_SIZE ||
		    memcmp(code, mark, 4) || memcmp(code + 5, mark + 4, 3))
			continue;
		qemu_plugin_register_vcpu_insn_exec_cb(insn, code[4] == 'b' ? begin : end, 0, NULL);
	}
}

static void translate(uint64_t id, struct qemu_plugin_tb *tb)
{
	struct piece *piece = malloc(sizeof(*piece));	// kept: QEMU does not say when it forgets a translation
	uint64_t address = qemu_plugin_tb_vaddr(tb);
	int user = !(address >> 63);

	(void)id;
	piece->block = block_at(user ? 0 : address);
	piece->length = qemu_plugin_tb_n_insns(tb);
	qemu_plugin_register_vcpu_tb_exec_cb(tb, count, 0, piece);
	if (user)
		look_for_marks(tb);
}

int qemu_plugin_install(uint64_t id, const void *about, int argc, char **argv)
{
	(void)about;
	out = argc == 1 && !strncmp(argv[0], "out=", 4) ? fopen(argv[0] + 4, "w") : NULL;
	if (!out)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	return 0;
}
