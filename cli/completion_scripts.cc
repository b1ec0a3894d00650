// SPDX-License-Identifier: GPL-2.0
// What bash, zsh and fish load. See complete.h.
#include "cli/complete.h"

namespace svctl {

namespace {

// bash splits words at '=' and ':' where COMP_WORDBREAKS has them, and replaces only what follows.
constexpr const char *kBash = R"script(# bash completion of svctl(8); svctl --completion bash prints it.
_svctl()
{
	local words=() word joined='' head='' own path kind=''
	local i
	for ((i = 1; i <= COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if [[ ${#words[@]} -gt 0 && ($joined || $word == [=:]*) ]]; then
			words[-1]+=$word
		else
			words+=("$word")
		fi
		joined=''
		[[ $word == *[=:] && $COMP_WORDBREAKS == *=* ]] && joined=1
	done
	[[ ${#words[@]} -gt 0 ]] || words=('')
	own=${words[-1]}
	[[ $COMP_WORDBREAKS == *=* ]] && head=${own%"${own##*[=:]}"}
	COMPREPLY=()
	while IFS=$'\t' read -r word _; do
		case $word in
		:*) kind=$word ;;
		*) COMPREPLY+=("${word#"$head"}") ;;
		esac
	done < <("${COMP_WORDS[0]}" --complete "${words[@]}" 2> /dev/null)
	own=${own#"$head"}
	path=$own
	[[ $kind == :list ]] && path=${own##*[=,]}
	if [[ $kind ]]; then
		while IFS= read -r word; do
			[[ -d $word && $path != "$own" ]] && word+=/
			COMPREPLY+=("${own%"$path"}$word")
		done < <(compgen -f -- "$path")
		[[ $path == "$own" ]] && compopt -o filenames 2> /dev/null
	fi
	[[ ${COMPREPLY[0]-} == *[=/] ]] && compopt -o nospace 2> /dev/null
	return 0
}
complete -F _svctl svctl
)script";

constexpr const char *kZsh = R"script(#compdef svctl
# zsh completion of svctl(8); svctl --completion zsh prints it.
_svctl()
{
	local -a found shown open
	local line word kind
	for line in "${(@f)$("${words[1]}" --complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2> /dev/null)}"; do
		word=${line%%$'\t'*}
		case $word in
		'') ;;
		:*) kind=$word ;;
		*[=/]) open+=("$word") ;;
		*)
			found+=("$word")
			shown+=("$word${${line#*$'\t'}:+  -- ${line#*$'\t'}}")
			;;
		esac
	done
	[[ -n $kind ]] && { [[ $kind != :list ]] || compset -P '*[=,]'; _files; return }
	compadd -S '' -a open
	compadd -l -d shown -a found
}
if [[ $funcstack[1] == _svctl ]]; then
	_svctl "$@"
else
	compdef _svctl svctl
fi
)script";

constexpr const char *kFish = R"script(# fish completion of svctl(8); svctl --completion fish prints it.
function __svctl_complete
	set -l words (commandline -opc)
	set -l current (commandline -ct)
	for line in ($words[1] --complete $words[2..] "$current" 2> /dev/null)
		switch $line
			case ':files*'
				__fish_complete_path "$current"
			case ':list*'
				set -l path (string replace -r '^.*[=,]' '' -- "$current")
				set -l head (string replace -r '[^=,]*$' '' -- "$current")
				for file in (__fish_complete_path "$path")
					echo -- $head$file
				end
			case '*'
				echo -- $line
		end
	end
end
complete -c svctl -f -a '(__svctl_complete)'
)script";

}	// namespace

const char *completion_script(const std::string &shell)
{
	return shell == "bash" ? kBash : shell == "zsh" ? kZsh : shell == "fish" ? kFish : nullptr;
}

}	// namespace svctl
