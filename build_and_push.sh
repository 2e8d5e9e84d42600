#!/usr/bin/env bash
# Build an image, make sure that its repository exists in Amazon ECR, and push it there.
# Needs bash 3.2, the AWS CLI, and docker, podman or buildah; nothing of byoa has to be installed.
set -euo pipefail
export AWS_PAGER="" LC_ALL=C  # the CLI's pager waits for a key; messages are read in English below

usage() {
  cat <<'TEXT'
usage: build_and_push.sh [OPTIONS] [NAME] [CONTEXT]

Builds CONTEXT (this script's folder) and pushes it to the ECR repository NAME (byoa), which is
created with scan on push where it is missing. Prints the image's URI with its tag and with its
digest on standard output, everything else on standard error, and writes image-uri.json.

  --dry-run            print the commands; build, push and change nothing
  --variant cpu|gpu    build argument TORCH_VARIANT: gpu is cu126, or TORCH_VARIANT where it is set
  --platform PLATFORM  linux/amd64 (default, on any host) or linux/arm64 (Graviton instances)
  --region REGION      else AWS_REGION, AWS_DEFAULT_REGION, then the AWS CLI's configuration
  --account ACCOUNT    the registry's account; else that of the credentials
  --tag TAG            latest
  --dockerfile FILE    CONTEXT/Dockerfile
  --output FILE        image-uri.json in the current folder
  --no-push            build NAME:TAG in the engine and stop there
  --image IMAGE        push this image of the engine; build nothing
  --help

  ENGINE=docker|podman|buildah   else the first of these that is installed
  BYOA_REGISTRY=HOST:PORT        a registry that stands for ECR's own; its API is asked all the same
  CONTEXT_LIMIT_MB=10240         a larger context is refused
  BASE_IMAGE EXTRAS TORCH_INDEX TORCH_VARIANT PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST
  PIP_CERT PIP_DEFAULT_TIMEOUT   build arguments, where they are set and the Dockerfile has them

example: build_and_push.sh --region eu-west-1 --tag 1.0 my-algorithm ./my-algorithm
TEXT
}

BUILD_ARGUMENTS=(BASE_IMAGE EXTRAS TORCH_INDEX TORCH_VARIANT PIP_INDEX_URL PIP_EXTRA_INDEX_URL
  PIP_TRUSTED_HOST PIP_CERT PIP_DEFAULT_TIMEOUT)
GPU_VARIANT=cu126
MANIFEST=application/vnd.docker.distribution.manifest.v2+json  # the one that SageMaker always takes

note() { printf '%s\n' "$*" >&2; }

# die WHAT CURE [STATUS]
die() {
  note "build_and_push: $1"
  note "  do: $2"
  exit "${3:-1}"
}

bad_option() { die "$1" "$2; see build_and_push.sh --help" 2; }

# --- the command line ----------------------------------------------------------------------------

dry_run="" variant="" platform=linux/amd64 region="" account="" tag="" dockerfile="" push=yes
image="" output=image-uri.json name="" context=""

parse_options() {
  local positional=0 option
  while [ $# -gt 0 ]; do
    case $1 in
      --*=*) option=$1; shift; set -- "${option%%=*}" "${option#*=}" "$@"; continue ;;
      --dry-run) dry_run=yes; shift; continue ;;
      --no-push) push=""; shift; continue ;;
      -h | --help) usage; exit 0 ;;
      --variant | --platform | --region | --account | --tag | --dockerfile | --output | --image)
        [ -n "${2:-}" ] || bad_option "$1 has no value" "write $1 VALUE" ;;
      -*) bad_option "$1 is no option" "take it away" ;;
      *)
        positional=$((positional + 1))
        case $positional in
          1) name=$1 ;;
          2) context=$1 ;;
          *) bad_option "$1 is one argument too many" "give NAME and CONTEXT" ;;
        esac
        shift
        continue
        ;;
    esac
    case $1 in
      --variant) variant=$2 ;;
      --platform) platform=$2 ;;
      --region) region=$2 ;;
      --account) account=$2 ;;
      --tag) tag=$2 ;;
      --dockerfile) dockerfile=$2 ;;
      --output) output=$2 ;;
      --image) image=$2 ;;
    esac
    shift 2
  done
}

check_options() {
  case $variant in
    "" | cpu | gpu) ;;
    *) bad_option "--variant $variant" "choose cpu or gpu" ;;
  esac
  case $platform in
    linux/amd64 | linux/arm64) ;;
    *) bad_option "--platform $platform: SageMaker runs one platform an image" \
      "choose linux/amd64, or linux/arm64 for Graviton instances" ;;
  esac
  if [ -n "$image" ]; then
    [ -z "$variant$dockerfile$context" ] || bad_option "--image builds nothing" \
      "leave out --variant, --dockerfile and CONTEXT"
    [ -n "$push" ] || bad_option "--image with --no-push does nothing" "leave out one of them"
    take_apart_image
  fi
  : "${name:=byoa}" "${tag:=latest}"
  local part='[a-z0-9]+([._-][a-z0-9]+)*' pattern
  pattern="^($part/)*$part\$"
  if ! [[ $name =~ $pattern ]] || [ ${#name} -lt 2 ] || [ ${#name} -gt 256 ]; then
    bad_option "'$name' is no name of an ECR repository" \
      "use 2 to 256 lower-case letters, digits and single . _ - / between them; the tag is --tag"
  fi
  if ! [[ $tag =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ ]] || [ ${#tag} -gt 128 ]; then
    bad_option "'$tag' is no tag" \
      "use up to 128 letters, digits and . _ -, not beginning with . or -"
  fi
  [ -z "$account" ] || [[ $account =~ ^[0-9]{12}$ ]] || bad_option \
    "'$account' is no account" "give its 12 digits"
  [ -z "$region" ] || check_region "$region"
  [ -d "$(dirname "$output")" ] ||
    bad_option "the folder of --output $output does not exist" "make it"
}

# The repository and the tag of IMAGE stand in for NAME and --tag.
take_apart_image() {
  local rest=$image last
  case $rest in
    *@*) [ -n "$tag" ] || bad_option "$image has no tag" "give the tag to push it under: --tag"
      rest=${rest%%@*} ;;
  esac
  last=${rest##*/}
  case $last in
    *:*) : "${tag:=${last##*:}}"; rest=${rest%:*} ;;
  esac
  case ${rest%%/*} in
    "$rest") ;;
    *.* | *:* | localhost) rest=${rest#*/} ;;  # a host, by Docker's rule
  esac
  : "${name:=$rest}"
}

REGION='^[a-z]+(-[a-z]+)+-[0-9]+$'
check_region() {
  [[ $1 =~ $REGION ]] || bad_option "'$1' is no region" "give one such as us-east-1"
}

# --- running things ------------------------------------------------------------------------------

scratch=""
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT

show() { printf '+'; printf ' %q' "$@"; echo; }

# Shows and runs a command with its output on standard error and in $scratch/log.
logged() {
  if [ -n "$dry_run" ]; then show "$@"; return; fi
  show "$@" >&2
  "$@" 2>&1 | tee "$scratch/log" >&2
}

said() { grep -qiE -- "$1" "$scratch/log"; }

aws_cli() { aws --region "$region" "$@" 2>"$scratch/log"; }

# Why the last call of the AWS CLI failed, and what to do: WHAT [PERMISSION]
aws_died() {
  cat "$scratch/log" >&2
  if said 'unable to locate credentials|no credentials|config profile .* could not be found'; then
    die "$1: the AWS CLI has no credentials" \
      "aws configure, or aws sso login, or set AWS_PROFILE or AWS_ACCESS_KEY_ID"
  elif said 'expired|sso session|refresh failed'; then
    die "$1: the credentials have expired" "aws sso login, or fetch new ones, and run this again"
  elif said 'AccessDenied|not authorized'; then
    die "$1: access denied" \
      "ask for ${2:-the permission named above} in region $region${account:+, account $account}"
  elif said 'InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|InvalidSignature'; then
    die "$1: AWS does not know these credentials" \
      "check AWS_PROFILE and the keys; is the clock right?"
  elif said 'could not connect|connect timeout|name or service not known|failed to resolve'; then
    die "$1: no answer" "check the network, the region ($region)${AWS_ENDPOINT_URL:+,\
 and AWS_ENDPOINT_URL=$AWS_ENDPOINT_URL}"
  elif said 'invalid choice'; then
    die "$1: this AWS CLI is too old" "install version 2, or 1.18 and newer"
  elif said 'LimitExceeded'; then
    die "$1: the account has as many as it may" "delete some repositories, or have the quota raised"
  fi
  die "$1: the AWS CLI failed, see above" "run the command by itself with --debug"
}

find_engine() {
  local each
  engine=${ENGINE:-}
  if [ -z "$engine" ]; then
    for each in docker podman buildah; do
      if command -v "$each" >/dev/null; then engine=$each; break; fi
    done
  fi
  case $engine in
    docker | podman | buildah) ;;
    "") die "no docker, podman or buildah is installed" \
      "install one of them: https://docs.docker.com/engine/install or https://podman.io" ;;
    *) bad_option "ENGINE=$engine" "choose docker, podman or buildah" ;;
  esac
  if ! command -v "$engine" >/dev/null; then
    [ -z "$dry_run" ] || return 0
    die "$engine is not installed" "install it, or choose another: ENGINE=docker, podman or buildah"
  fi
  # Where podman goes by the name of docker, it is still podman.
  if [ "$engine" = docker ] && docker --version 2>/dev/null | grep -qi podman; then
    engine=podman
  fi
  [ -z "$dry_run" ] || return 0
  local question=info
  [ "$engine" != docker ] || question=version  # some clients' info succeeds without an engine
  if ! "$engine" "$question" >/dev/null 2>"$scratch/log"; then
    tail -n 3 "$scratch/log" >&2
    case $engine in
      docker)
        if said 'permission denied'; then
          die "you may not use Docker's socket" \
            "sudo usermod -aG docker \"\$USER\" and log in anew, or use ENGINE=podman"
        fi
        die "Docker does not answer${DOCKER_HOST:+ at DOCKER_HOST=$DOCKER_HOST}" \
          "start Docker Desktop, or: sudo systemctl start docker; or use ENGINE=podman" ;;
      podman) die "Podman does not answer" "podman info says why; on macOS: podman machine start" ;;
      *) die "Buildah does not work here" \
        "buildah info says why; without root it needs user namespaces" ;;
    esac
  fi
}

found_account=""
find_account_and_region() {
  [ -z "$found_account" ] || return 0
  found_account=yes
  # A dry run that knows account and region has nothing to ask.
  if [ -z "$dry_run" ] || [ -z "$account" ]; then
    command -v aws >/dev/null ||
      die "the AWS CLI is not installed" "https://docs.aws.amazon.com/cli, or pip install awscli"
  fi
  : "${region:=${AWS_REGION:-${AWS_DEFAULT_REGION:-}}}"
  if [ -z "$region" ] && command -v aws >/dev/null; then
    region=$(aws configure get region 2>"$scratch/log") || region=""
    if said 'could not be found'; then aws_died "asking for the region"; fi
  fi
  [ -n "$region" ] || die "no region is set" \
    "give --region, set AWS_REGION, or: aws configure set region us-east-1"
  check_region "$region"
  if [ -n "$account" ]; then
    registry_id=(--registry-id "$account")
    return
  fi
  account=$(aws_cli sts get-caller-identity --query Account --output text) ||
    aws_died "asking for the account" sts:GetCallerIdentity
}

# --- the Dockerfile ------------------------------------------------------------------------------

# Prints `ARG name` for each build argument, and `FROM image` for each image that is pulled, with
# the arguments' defaults, or what the environment has for them, in place; then `PLATFORM platform`
# where the last stage's FROM line fixes it.
read_dockerfile() {
  awk -v passed=" ${BUILD_ARGUMENTS[*]} " '
    function expanded(text,    name, default_, value, out) {
      out = ""
      while (match(text, /\$[{][A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?[}]|\$[A-Za-z_][A-Za-z0-9_]*/)) {
        name = substr(text, RSTART + 1, RLENGTH - 1)
        out = out substr(text, 1, RSTART - 1)
        text = substr(text, RSTART + RLENGTH)
        gsub(/[{}]/, "", name)
        default_ = ""
        if (index(name, ":-")) {
          default_ = substr(name, index(name, ":-") + 2)
          name = substr(name, 1, index(name, ":-") - 1)
        }
        value = name in value_of ? value_of[name] : ""
        out = out (value == "" ? default_ : value)
      }
      return out text
    }
    { sub(/\r$/, "") }
    /^[ \t]*#/ { next }
    { line = line $0 }
    /\\[ \t]*$/ { sub(/\\[ \t]*$/, " ", line); next }
    {
      count = split(line, word, /[ \t]+/); line = ""
      first = word[1] == "" ? 2 : 1
      instruction = toupper(word[first])
      if (instruction == "ARG") {
        for (i = first + 1; i <= count; i++) {
          if (word[i] == "") continue
          name = word[i]; sub(/=.*/, "", name)
          print "ARG " name
          if (!stages) {
            value = index(word[i], "=") ? substr(word[i], index(word[i], "=") + 1) : ""
            gsub(/^["\047]|["\047]$/, "", value)
            value_of[name] = expanded(value)
            if (index(passed, " " name " ") && name in ENVIRON) value_of[name] = ENVIRON[name]
          }
        }
      } else if (instruction == "FROM") {
        stages++
        fixed = ""
        for (i = first + 1; i <= count && word[i] ~ /^--/; i++)
          if (word[i] ~ /^--platform=/) fixed = expanded(substr(word[i], 12))
        image = expanded(word[i])
        print "FROM " image
        if (fixed == "" && image in platform_of) fixed = platform_of[image]
        if (toupper(word[i + 1]) == "AS") platform_of[word[i + 2]] = fixed
      } else if (instruction == "COPY") {
        for (i = first + 1; i <= count; i++)
          if (word[i] ~ /^--from=/) print "FROM " substr(word[i], 8)
      }
    }
    END { if (fixed != "") print "PLATFORM " fixed }' "$1"
}

has_argument() { grep -qx "ARG $1" "$scratch/dockerfile"; }

# The build arguments that are set and that the Dockerfile has, in `arguments`.
choose_arguments() {
  local each fixed
  case $variant in
    cpu)
      [ "${TORCH_VARIANT:-cpu}" = cpu ] ||
        bad_option "--variant cpu and TORCH_VARIANT=$TORCH_VARIANT" "take one of them away"
      export TORCH_VARIANT=cpu ;;
    gpu)
      case ${TORCH_VARIANT:=$GPU_VARIANT} in
        cpu | none)
          bad_option "--variant gpu and TORCH_VARIANT=$TORCH_VARIANT" "take one of them away" ;;
      esac
      export TORCH_VARIANT ;;
  esac
  read_dockerfile "$dockerfile" >"$scratch/dockerfile"
  # BuildKit would write the platform that is asked for on an image of the other's programs.
  fixed=$(sed -n 's/^PLATFORM //p' "$scratch/dockerfile")
  case $fixed in
    "" | "$platform" | "$platform"/*) ;;
    *) die "$dockerfile ends in an image for $fixed, not $platform: a job on it would end in\
 'exec format error'" "take --platform out of its FROM line, or give --platform $fixed here" ;;
  esac
  [ -z "$variant" ] || has_argument TORCH_VARIANT || die \
    "$dockerfile has no build argument TORCH_VARIANT: --variant means nothing to it" \
    "choose the variant where the image in its FROM line is built"
  for each in "${BUILD_ARGUMENTS[@]}"; do
    if [ -n "${!each+set}" ] && has_argument "$each"; then
      export "${each?}"
      case $each in
        BASE_IMAGE | EXTRAS | TORCH_VARIANT) arguments+=(--build-arg "$each=${!each}") ;;
        *) arguments+=(--build-arg "$each") ;;  # an index's address may hold a password
      esac
    fi
  done
}

# Measures what is sent to the engine: all that .dockerignore does not leave out at the top level.
check_context() {
  local entry pattern base ignored kept total limit=${CONTEXT_LIMIT_MB:-10240}
  kept=()
  [[ $limit =~ ^[0-9]+$ ]] || bad_option "CONTEXT_LIMIT_MB=$limit" "give a number of megabytes"
  for entry in "$context"/* "$context"/.[!.]*; do
    [ -e "$entry" ] || [ -L "$entry" ] || continue
    base=${entry##*/} ignored=""
    if [ -f "$context/.dockerignore" ]; then
      while IFS= read -r pattern || [ -n "$pattern" ]; do
        pattern=${pattern%$'\r'} pattern=${pattern%/}
        case $pattern in
          "#"* | "") ;;
          "!"*) pattern=${pattern#!} pattern=${pattern#/}
            # shellcheck disable=SC2254  # it is meant as a pattern
            case $base in ${pattern%%/*}) ignored="" ;; esac ;;
          *) pattern=${pattern#/} pattern=${pattern#\*\*/}
            # shellcheck disable=SC2254
            case $base in $pattern) ignored=yes ;; esac ;;
        esac
      done <"$context/.dockerignore"
    fi
    [ -n "$ignored" ] || kept+=("$entry")
  done
  [ ${#kept[@]} -gt 0 ] || return 0
  case $(cd "$context" && pwd) in
    / | "$HOME") [ -f "$context/.dockerignore" ] || die "the build context is all of $context" \
      "put the Dockerfile and what it copies in a folder of their own" ;;
  esac
  du -sk "${kept[@]}" 2>/dev/null | sort -rn >"$scratch/sizes" || true
  total=$(awk '{ sum += $1 } END { print int(sum / 1024) }' "$scratch/sizes")
  [ "$total" -gt $((limit / 10)) ] || return 0
  note "the build context is $total MB; the largest in it:"
  awk 'NR <= 3 { size = $1; sub(/^[0-9]+[ \t]+/, ""); printf "  %6d MB  %s\n", size / 1024, $0 }' \
    "$scratch/sizes" >&2
  [ "$total" -le "$limit" ] || die "the build context is larger than $limit MB" \
    "name in $context/.dockerignore what the image does not need (data, models, .venv, .git),\
 or raise CONTEXT_LIMIT_MB"
}

# --- logging in, building, pushing ---------------------------------------------------------------

ECR_HOST='^[0-9]{12}[.]dkr[.-]ecr(-fips)?[.][a-z0-9-]+[.][a-z0-9.]+$'
is_ecr() { [[ $1 =~ $ECR_HOST ]]; }

# A registry on this machine may speak plain HTTP, as Docker has it; `plain` is then the option.
tls_option() {
  plain=()
  [ "$engine" != docker ] || return 0
  case $1 in 127.* | localhost | localhost:*) plain=(--tls-verify=false) ;; esac
}

logged_in=" "
# log_in HOST: with the token of HOST's region, which never is an argument; sets `plain` for HOST
log_in() {
  local host=$1 at=$region get login
  tls_option "$host"
  case $logged_in in *" $host "*) return 0 ;; esac
  logged_in="$logged_in$host "
  if is_ecr "$host"; then
    at=${host#*ecr} at=${at#-fips} at=${at#.} at=${at%%.*}
  fi
  get=(aws --region "$at" ecr get-login-password)
  login=("$engine" login ${plain[@]+"${plain[@]}"} --username AWS --password-stdin "$host")
  if [ -n "$dry_run" ]; then
    printf '%s | %s\n' "$(show "${get[@]}")" "$(show "${login[@]}" | cut -c 3-)"
    return
  fi
  note "$(show "${get[@]}") | $(show "${login[@]}" | cut -c 3-)"
  "${get[@]}" >"$scratch/password" 2>"$scratch/log" ||
    aws_died "asking for the password of $host" ecr:GetAuthorizationToken
  if ! "${login[@]}" <"$scratch/password" >"$scratch/log" 2>&1; then
    rm -f "$scratch/password"
    # Amazon's credential helper logs in by itself, and cannot be given a password.
    if said 'not implemented'; then note "$host: left to the credential helper"; return; fi
    cat "$scratch/log" >&2
    if said 'saving credentials|storing credentials|docker-credential'; then
      die "logging in to $host: the password could not be stored" \
        "see credsStore and credHelpers in \${DOCKER_CONFIG:-~/.docker}/config.json"
    fi
    die "logging in to $host failed" \
      "check that the host is right and reached from here, and that its account lets yours in"
  fi
  rm -f "$scratch/password"
}

has_image() {
  if [ "$engine" = buildah ]; then
    buildah inspect --type image "$1" >/dev/null 2>&1
  else
    "$engine" image inspect "$1" >/dev/null 2>&1
  fi
}

# Every ECR registry that the build pulls from; BYOA_REGISTRY stands for them all.
prepare_bases() {
  local base host stand_in
  plain_bases=""
  sed -n 's/^FROM //p' "$scratch/dockerfile" | sort -u >"$scratch/bases"
  while IFS= read -r base <&3; do
    host=${base%%/*}
    [ -n "$host" ] || continue
    if is_ecr "$host" && [ -n "${BYOA_REGISTRY:-}" ]; then
      [ -n "$dry_run" ] || ! has_image "$base" || continue
      find_account_and_region
      log_in "$BYOA_REGISTRY"
      stand_in=$BYOA_REGISTRY/${base#*/}
      logged "$engine" pull ${plain[@]+"${plain[@]}"} "$stand_in" || pull_died "$base"
      logged "$engine" tag "$stand_in" "$base"
    elif is_ecr "$host" || [ "$host" = "${BYOA_REGISTRY:-}" ]; then
      find_account_and_region
      log_in "$host"
      [ ${#plain[@]} -eq 0 ] || plain_bases=yes
    fi
  done 3<"$scratch/bases"
}

pull_died() {
  die "$1 could not be pulled" "is it pushed to ${BYOA_REGISTRY:-its registry}, under that tag?"
}

build() {
  local command
  command=("$engine" build)
  case $engine in
    docker)
      docker build --help >"$scratch/log" 2>&1 || true
      # Attestations make an image index of the image, which SageMaker refuses.
      said '--provenance' && command+=(--provenance=false)
      said '--sbom' && command+=(--sbom=false)
      if said '--load'; then
        # Docker's newer store keeps OCI manifests unless it is told; the older one has none.
        case $(docker info --format '{{json .DriverStatus}}' 2>/dev/null) in
          *io.containerd.snapshotter*) command+=(--output "type=image,oci-mediatypes=false") ;;
          *) command+=(--load) ;;
        esac
      fi ;;
    podman) command+=(--format docker) ;;
    buildah) command=(buildah bud --layers --format docker) ;;  # a cache, as the others have
  esac
  [ -z "$plain_bases" ] || command+=(--tls-verify=false)
  command+=(--platform "$platform" --tag "$local_image" --file "$dockerfile")
  logged "${command[@]}" ${arguments[@]+"${arguments[@]}"} "$context" || build_died
}

OTHER_PLATFORM='does not match the (specified|expected) platform|no match for platform'
OTHER_PLATFORM="$OTHER_PLATFORM|no image found in .* for architecture|no matching manifest"
NOT_PULLED='pull access denied|manifest unknown|manifest for .* not found|short-name|no basic auth'
NOT_PULLED="$NOT_PULLED|unauthorized|403 forbidden|401 unauthorized|: not found"

build_died() {
  local bases
  if said 'no space left|disk quota'; then
    die "the disk is full" \
      "${engine/buildah/podman} system df tells what takes room, and system prune gives it back"
  elif said 'exec format error'; then
    die "this machine cannot run $platform programs" \
      "install their emulation (Debian: qemu-user-static binfmt-support; Docker Desktop has it),\
 or build on such a machine"
  elif said 'toomanyrequests|rate limit'; then
    die "a registry limits how often you pull" \
      "log in to it ($engine login), or set BASE_IMAGE to a mirror's"
  elif said "$OTHER_PLATFORM"; then
    die "the image in a FROM line is not there for $platform" \
      "pull it for that platform, name one that has it (BASE_IMAGE), or choose another --platform"
  elif said 'public.ecr.aws.*(403|denied|expired)'; then
    die "an old login to public.ecr.aws is in the way" "$engine logout public.ecr.aws"
  elif said "$NOT_PULLED"; then
    bases=$(tr '\n' ' ' <"$scratch/bases")
    die "an image that the Dockerfile is built from could not be pulled; it names: $bases" \
      "is its name whole and right, may you pull it, or is it to be built here first?\
 (byoa itself: build_and_push.sh --no-push)"
  elif said 'no such host|i/o timeout|connection refused|x509|certificate'; then
    die "the build did not reach the network; the image of each FROM line is looked for there\
 where this engine does not have it for $platform" \
      "check the proxy and its certificate, or set BASE_IMAGE to an image at hand"
  fi
  die "the build failed, see above" "mend the step of $dockerfile that failed and run this again"
}

check_platform() {
  local found inspect
  [ -z "$dry_run" ] || return 0
  inspect=("$engine" image inspect --format '{{.Os}}/{{.Architecture}}')
  [ "$engine" != buildah ] ||
    inspect=(buildah inspect --type image --format '{{.OCIv1.OS}}/{{.OCIv1.Architecture}}')
  found=$("${inspect[@]}" "$local_image" 2>"$scratch/log") ||
    die "$engine has no image $local_image" "build it first, or see its name in: $engine images"
  [ "$found" = "$platform" ] || die \
    "$local_image is $found, not $platform: a job on it would end in 'exec format error'" \
    "build it for $platform, or give --platform $found and use instances of that kind"
}

create_repository() {
  local describe create uri
  describe=(ecr describe-repositories ${registry_id[@]+"${registry_id[@]}"}
    --repository-names "$name")
  create=(ecr create-repository ${registry_id[@]+"${registry_id[@]}"} --repository-name "$name"
    --image-scanning-configuration scanOnPush=true)
  if [ -n "$dry_run" ]; then
    show aws --region "$region" "${describe[@]}"
    printf '%s   # where it is missing\n' "$(show aws --region "$region" "${create[@]}")"
    registry=$account.dkr.ecr.$region.amazonaws.com
    case $region in cn-*) registry=$registry.cn ;; esac
    return
  fi
  if ! uri=$(aws_cli "${describe[@]}" --query 'repositories[0].repositoryUri' --output text); then
    said RepositoryNotFound || aws_died "looking for repository $name" ecr:DescribeRepositories
    note "creating repository $name in account $account, region $region"
    if ! uri=$(aws_cli "${create[@]}" --query repository.repositoryUri --output text); then
      said RepositoryAlreadyExists || aws_died "creating repository $name" ecr:CreateRepository
      # Somebody else was quicker.
      uri=$(aws_cli "${describe[@]}" --query 'repositories[0].repositoryUri' --output text) ||
        aws_died "looking for repository $name" ecr:DescribeRepositories
    fi
  fi
  registry=${uri%%/*}
}

push_image() {
  local host=${BYOA_REGISTRY:-$registry} target
  target=$host/$name:$tag
  log_in "$host"
  if [ "$engine" = docker ]; then
    logged docker tag "$local_image" "$target"
    logged docker push "$target" || push_died "$target"
  else
    logged "$engine" push ${plain[@]+"${plain[@]}"} --format v2s2 --digestfile "$scratch/digest" \
      "$local_image" "docker://$target" || push_died "$target"
  fi
  [ -z "$dry_run" ] || return 0
  if [ "$engine" = docker ]; then
    digest=$(sed -n 's/.*digest: \(sha256:[0-9a-f]*\).*/\1/p' "$scratch/log" | tail -n 1)
    check_manifest "$host/$name@$digest"
    # The stand-in's name means nothing beside ECR's; the image keeps its own.
    [ -z "${BYOA_REGISTRY:-}" ] || [ "$local_image" = "$target" ] || docker rmi "$target" >/dev/null
  else
    digest=$(cat "$scratch/digest")
  fi
}

push_died() {
  if said 'no space left'; then
    die "the disk is full" "$engine system prune, and run this again"
  elif said 'immutable'; then
    die "tag $tag exists and the repository lets none be overwritten" "choose another --tag"
  elif said 'expired|no basic auth|denied|unauthorized|authentication required|403 forbidden'; then
    die "pushing $1 was denied" \
      "allow ecr:InitiateLayerUpload, UploadLayerPart, CompleteLayerUpload,\
 BatchCheckLayerAvailability and PutImage on it; a login lasts 12 hours: run this again"
  elif said 'name unknown|does not exist'; then
    die "$1 has no repository" "check --account and --region against aws ecr describe-repositories"
  elif said 'http status: 5|internal server error'; then
    die "the registry failed while $1 was pushed" \
      "read its own log, where it is yours (a full disk is the usual cause), and run this again"
  elif said 'no such host|i/o timeout|connection refused|EOF|reset by peer'; then
    die "the push of $1 was cut off" \
      "check the network and run this again: layers that arrived are not sent twice"
  fi
  die "the push of $1 failed, see above" "run this again; layers that arrived are not sent twice"
}

# Podman and Buildah are told which manifest to make; of Docker it is read back.
check_manifest() {
  local found insecure
  insecure=()
  case $1 in 127.* | localhost[:/]*) insecure=(--insecure) ;; esac
  found=$(docker manifest inspect ${insecure[@]+"${insecure[@]}"} "$1" 2>"$scratch/log" |
    sed -n 's/.*"mediaType": *"\([^"]*\)".*/\1/p' | awk 'NR == 1') || found=""
  case $found in
    "$MANIFEST") ;;
    "") note "note: the manifest could not be read back to see that it is $MANIFEST" ;;
    *) die "the registry has it as $found; SageMaker may refuse all but $MANIFEST" \
      "build with this script (no attestations, one platform), or use ENGINE=podman" ;;
  esac
}

write_result() {
  local uri=$registry/$name:$tag
  if [ -n "$dry_run" ]; then
    note "would print $uri and its digest, and write them to $output"
    return
  fi
  cat >"$output.part" <<JSON
{
  "uri": "$uri",
  "uri_with_digest": "$registry/$name@$digest",
  "digest": "$digest",
  "registry": "$registry",
  "repository": "$name",
  "tag": "$tag",
  "account": "$account",
  "region": "$region",
  "platform": "$platform"
}
JSON
  mv "$output.part" "$output"
  printf '%s\n%s\n' "$uri" "$registry/$name@$digest"
}

# --- the whole -----------------------------------------------------------------------------------

parse_options "$@"
check_options
scratch=$(umask 077 && mktemp -d "${TMPDIR:-/tmp}/build-and-push.XXXXXX")
arguments=() registry_id=() plain=() registry="" digest=""
if [ -z "$image" ]; then
  : "${context:=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)}"
  [ -d "$context" ] || bad_option "$context is no folder" "give the folder to build as CONTEXT"
  : "${dockerfile:=$context/Dockerfile}"
  [ -f "$dockerfile" ] || die "$dockerfile does not exist" \
    "write one (FROM byoa:latest, and a COPY of your files to /opt/program), or name it with\
 --dockerfile; byoa build needs none"
  choose_arguments
  check_context
fi
# An earlier push's would be wrong, should this one fail, and may lie in the context.
[ -n "$dry_run" ] || [ -z "$push" ] || rm -f "$output"
find_engine
local_image=${image:-$name:$tag}
[ -z "$image" ] || check_platform
if [ -n "$push" ]; then
  # What AWS would refuse is known before a build of minutes.
  find_account_and_region
  create_repository
  log_in "${BYOA_REGISTRY:-$registry}"
fi
if [ -z "$image" ]; then
  prepare_bases
  build
  check_platform
fi
if [ -n "$push" ]; then
  push_image
  write_result
elif [ -z "$dry_run" ]; then
  printf '%s\n' "$local_image"
fi
