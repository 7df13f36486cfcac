"""What the demo language model is asked about the studio, in many wordings, and what it answers.

A wording is a pattern: (a|b|c) stands for any one of its alternatives, also nested; (a|) for a or nothing. A tenth
of all
wordings, by a stable hash, is held out of training for the evaluation.
"""
import re
import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """name: for tables. wordings: patterns. answers: any of them is right."""

    name: str
    wordings: tuple
    answers: tuple


MYSTI = "(mysti|this|this studio|the studio|this program|this app|this software)"
HOW = "(how do i|how can i|how to|how does one|how would i|can i)"
PICTURE = "(picture|image)"
WHICH = "(which|what)"

TOPICS = (
    Topic("hello", ("(hello|hi|hey|hi there|hello there|hey there|good (morning|evening|day|afternoon)|greetings|"
                    "howdy|moin)"
                    "(| you| mysti| again|, how are you)",),
          ("Hello! I am Mysti's demo writer. Give me a short picture prompt and I make it richer, or ask me about "
           "the studio.",
           "Hi! Type a short prompt, like \"a red circle on a blue background\", and I write a richer one. "
           "You can also ask what the studio can do.")),
    Topic("how are you", ("how are you(| today| doing)", "how (is it going|do you do|do you feel|are things)",
                          "(are you|you) (ok|okay|fine|well|alright)", "what's up"),
          ("I am fine, thank you. Give me a prompt and I make it richer.",)),
    Topic("thanks", ("(thanks|thank you|thx|many thanks|cheers|thank you (very|so) much|thanks a lot)(| for (the|"
                     "your) help| mysti)",
                     "(great|perfect|nice|cool|wonderful|awesome|very good|good|well done)(| job| work|, thanks|, "
                     "thank you)",
                     "(that|it) (helped|helps|works|is great|is perfect)"),
          ("You're welcome! Bring me the next prompt whenever you like.",)),
    Topic("bye", ("(bye|goodbye|bye bye|see you|good night|farewell|see you (later|soon|tomorrow)|i have to go|"
                  "until (later|tomorrow)|take care|so long)(| mysti| then)",),
          ("Goodbye! Your pictures stay in the history.",)),
    Topic("who are you", ("(who|what) are you", "(who|what) am i (talking|speaking|chatting) (to|with)",
                          "(tell me|say something) about (you|yourself)", "what('s| is) your name", "do you have a "
                                                            "name",
                          "introduce yourself", "are you (a|an) (robot|bot|ai|machine|human|person|language model|"
                                                "llm|real person)",
                          "(what|which) (kind of |)(language |)model are you",
                          "are you (chatgpt|gpt|a large language model|llama|real|alive|human|intelligent|smart)"),
          ("I am the demo writer, a very small language model that comes with Mysti. I make short picture prompts "
           "richer and "
           "answer simple questions about the studio. For real conversation, load a bigger GGUF model.",)),
    Topic("what is this", (f"what is {MYSTI}", f"what('s| is) {MYSTI} (for|about|good for)", "what is mysti",
                           f"(explain|describe) {MYSTI}(| to me| please)", f"tell me (more |)about {MYSTI}",
                           f"what does {MYSTI} do", f"what (exactly |)is {MYSTI}", "where am i",
                           f"what (kind|sort) of (program|thing|tool) is {MYSTI}", f"why (should i use|would i use|"
                                                            f"use) {MYSTI}"),
          ("Mysti is a local studio for images and text that does not go down. You type a prompt and watch the "
           "picture come; a "
           "crashed worker costs a pause, never a result. Everything runs on your own computer.",)),
    Topic("what can you do", ("what can (you|i) do(| here| with this| for me)", "how can you help(| me)", "help(| "
                                                            "me| please)",
                              "what are you (good|able|made) (for|to do)", "what (do|can) (you|i) do(| in this studio)",
                              "(show|tell) me what you can(| do)", "what are your (skills|abilities|features|"
                                                            "capabilities)",
                              "what should i (ask|type|do|write)(| you| here)", "(what now|i am lost|i don't know "
                                                            "what to do)",
                              "what do you know", "what else can you do", "(give|show) me (some |)(examples|an "
                                                            "example)",
                              "what (questions |)can i ask(| you)"),
          ("I make a short picture prompt richer: try \"enhance: a red circle on a blue background\". I also answer "
           "questions "
           "about the studio: models, sizes, samplers, seeds, the history, crashes, the API.",)),
    Topic("what can you draw", (f"what (can|could) (you|the (image |demo |)model|{MYSTI}) (draw|paint|make|create|"
                                f"generate|show)",
                                f"{WHICH} (pictures|images|things|subjects|scenes|motifs) can (you|i|it|the (image |"
                                f"demo |)model) "
                                "(draw|paint|make|create|generate)",
                                "what (pictures|images) are possible", "what does the (demo |image |)model (know|"
                                                            "draw|understand)",
                                "what (can|may|should) i (draw|paint)", "what (prompts|subjects) (work|work well|"
                                                            "are possible)",
                                f"(what|which) (kind|kinds|sort|sorts) of {PICTURE}(s|) (can|does) (you|it|the "
                                f"model) (make|draw)",
                                "what (can be|is) (drawn|painted) (by|with) the demo model"),
          ("The demo image model draws one or two coloured shapes on a background, and simple landscapes: sun or "
           "moon, hills or "
           "sea, a house, a tree, a boat. Try \"a red circle on a blue background\".",)),
    Topic("colours", (f"{WHICH} colo(u|)rs (can you draw|are there|do you know|are possible|does it know|work|can i "
                      f"use|exist|"
                      "does the model know)", "(list|name|show|tell me) (all |)(the |your |)colo(u|)rs",
                      "how many colo(u|)rs (are there|do you know|can you draw)"),
          ("The demo image model knows ten colours: red, orange, yellow, green, blue, purple, pink, brown, black "
           "and white.",)),
    Topic("shapes", (f"{WHICH} (shapes|forms|figures|objects) (can you draw|are there|do you know|are possible|does "
                     f"it know|work|can i use|"
                     "exist|does the model know)", "(list|name|show|tell me) (all |)(the |your |)(shapes|forms|"
                                                   "objects)",
                     "how many (shapes|objects) (are there|do you know|can you draw)"),
          ("The demo image model knows six shapes: circle, square, triangle, star, heart and cross. One or two of "
           "them fit into a "
           "picture, small, medium or large.",)),
    Topic("backgrounds", (f"{WHICH} (backgrounds|patterns) (can you draw|are there|do you know|are possible|does it "
                          f"know|work|can i use|"
                          "exist)", "(list|name|show|tell me) (all |)(the |your |)(backgrounds|patterns)",
                          "what can the background be"),
          ("A background is plain, a gradient, stripes, a checkerboard or dots, in any of the ten colours. "
           "Example: \"a yellow star on purple stripes\".",)),
    Topic("styles", (f"{WHICH} (drawing |painting |art |)styles (can you draw|are there|do you know|are possible|"
                     f"does it know|work|can i use|"
                     "exist)", "(list|name|show|tell me) (all |)(the |your |)(styles|drawing styles|art styles)",
                     "how do i (choose|change|set) the (style|drawing style)"),
          ("The demo image model has three styles: flat illustration, line drawing with thick outlines, and "
           "watercolor painting. "
           "Say the style in the prompt.",)),
    Topic("landscapes", (f"{WHICH} (landscapes|scenery|sceneries) (can you draw|are there|do you know|are possible|"
                         f"work|can i use)",
                         "what can be (in|on) a landscape", "(can you|how do i) (draw|make|paint) (a |)(landscape|"
                                                            "landscapes)",
                         "(list|name|show|tell me about) (all |)(the |)landscapes"),
          ("Landscapes have green hills with a house or a tree, or the sea with a boat, under the sun or the moon, "
           "by day, at sunset "
           "or at night. Example: \"a boat on the sea at night\".",)),
    Topic("places", (f"{WHICH} (places|positions|relations|arrangements) (are there|do you know|are possible|work|"
                     f"can i use)",
                     "where can (shapes|things|objects|a shape|the shape) (be|stand|go)",
                     f"{HOW} (place|arrange|position|move) (a shape|two shapes|things|objects|shapes)",
                     f"{HOW} (put|draw) (one|two) (shape|shapes|things) (beside|next to|above) (another|each other)"),
          ("One shape can be in the middle, left, right, at the top or at the bottom. Two shapes can be left of, "
           "right of, above or "
           "below each other. Example: \"a pink heart above a black square\".",)),
    Topic("not in the domain", ("can you (draw|paint|make|show me|create) (a |an |some |)(cat|dog|person|people|"
                                "face|car|horse|portrait|"
                                "photo|photograph|dragon|castle|bird|flower|robot|human|animal|animals|text|letters|"
                                "words|city|"
                                "spaceship|hand|hands|elephant|fish|train|knight|unicorn|princess|lion|bicycle)",
                                "why (can't|can not|doesn't|does not) (you|it|the model) (draw|know|make) (a |)(cat|"
                                "dog|person|people|"
                                "photo|car|face|animal|horse)", "why (does|is) (my|the) (picture|image) (look |"
                                                            ")(wrong|bad|strange|ugly)",
                                "why is my (cat|dog|portrait|car) not (right|there|drawn|in the picture)"),
          ("The demo image model knows only coloured shapes and simple landscapes. For anything else, put a Stable "
           "Diffusion "
           "checkpoint into the models folder and load it on the Models page.",)),
    Topic("own model", (f"{HOW} (use|load|add|install|import|get|try|run) (my own|another|a different|a real|a "
                        f"bigger|a better|a new|other|my|"
                        "an own) (model|models|checkpoint|checkpoints|image model|image models|stable diffusion "
                        "model|weights)",
                        "where (do|should|must|can) i put (my |the |a |)(model|models|checkpoint|model files|"
                        "checkpoints|files)",
                        f"{HOW} (change|switch|replace|exchange|swap) (the |)(model|models|image model|demo model|"
                        f"demo models)",
                        "where (do|should) (the |my |)(model|models) (go|be|belong)",
                        "i (have|want to use|want to load) (a model|my own model|another model|a checkpoint)"),
          ("Put the file into the models folder (sub-folders are fine), open the Models page and press Load. It "
           "takes the place of the "
           "demo model; the one you used last is loaded again at the next start.",)),
    Topic("formats", (f"{WHICH} (model |file |)(formats|files|types|kinds of models|kinds of files|model types|"
                      f"model files) (do you|does it|can you|can "
                      "it|can i|do i|does mysti|can mysti) (support|read|load|use|take|need)",
                      f"{WHICH} (models|checkpoints|formats|file formats) (are supported|work|can i use|are there|"
                      f"can be loaded|run)",
                      "(do you|does it|does mysti) (support|read|know|run) (safetensors|gguf|stable diffusion|sdxl|"
                      "flux|lora|"
                      "ckpt|pickle|diffusers|onnx)(| files| models)", "(is|are) (sdxl|flux|lora|gguf|safetensors|"
                                                            "stable diffusion|ckpt) (files |)(supported|possible)",
                      "can i use (stable diffusion|sdxl|flux|a lora|loras|gguf|safetensors|llama)"),
          ("Images: Stable Diffusion checkpoints as safetensors, GGUF, ckpt or a diffusers folder. Text: any GGUF "
           "that llama.cpp reads. "
           "The Models page says of each file what it is and whether it can be used.",)),
    Topic("sizes", (f"{WHICH} (sizes|size|resolutions|resolution|dimensions) (are there|are possible|can i use|can "
                    f"a picture have|"
                    "can pictures have|are supported|do you support|can you make|can the picture be|should i use|is "
                    "best)",
                    "how (big|large|small|wide|high) can (a |the |my |)(picture|image|pictures|images) (be|get)",
                    "what is the (biggest|largest|maximum|maximal|smallest|default|best) (size|resolution|picture "
                    "size|image size)",
                    f"{HOW} (change|set|choose) the (size|resolution|width|height|picture size|image size)"),
          ("Width and height are 64 to 4096 pixels, in multiples of 8. The size that a model was trained for is the "
           "default and "
           "looks best: 128 for the demo model, 512 for Stable Diffusion 1.x.",)),
    Topic("samplers", (f"{WHICH} (samplers|sampler|sampling methods|sampling method) (are there|are possible|can i "
                       f"use|are supported|do you "
                       "support|do you have|should i use|is best|is the best|exist|does mysti have|is good)",
                       "what is (a|the) sampler(| for)", "(list|name|show|tell me|explain) (all |)(the |)samplers",
                       f"{HOW} (change|set|choose) the sampler", "what (does the sampler do|is euler|is heun|is dpm)"),
          ("There are about twenty, among them euler, euler_a, heun and dpm++2m. euler_a is the default; dpm++2m is "
           "good with few steps; heun takes twice "
           "the time per step. The page lists them all.",)),
    Topic("schedulers", (f"{WHICH} (schedulers|scheduler|schedules|noise schedules) (are there|are possible|can i "
                         f"use|are supported|do you "
                         "have|should i use|is best|exist)", "what is (a|the) (scheduler|schedule)(| for)",
                         "(list|name|show|explain) (all |)(the |)(schedulers|schedules)", "what is karras"),
          ("Discrete, karras, exponential, sgm_uniform, simple and some more; the page lists them all. Leave it alone "
           "and the sampler takes its own.",)),
    Topic("steps", ("how many steps (should i use|do i need|are good|are best|are needed|are enough|should it be)(| "
                    "for a (good |)picture)",
                    "what (are|do) (the |)(steps|sampling steps)(| do| mean| for)",
                    f"{WHICH} (number of steps|step count|steps) (is best|is good|should i use|should i take)",
                    "(do|are) more steps (better|make it better|help)"),
          ("20 steps are a good start, and the default. From 1 to 200 are possible; more steps take longer and "
           "rarely help beyond 40.",)),
    Topic("cfg", ("what (is|does|are) (the |)(cfg|cfg scale|guidance|guidance scale|cfg_scale)(| do| mean| for)",
                  f"{WHICH} (cfg|cfg scale|guidance scale|guidance) (is best|is good|should i use|should i take)",
                  f"{HOW} (change|set|choose) the (cfg|cfg scale|guidance)", "explain (the |)(cfg|cfg scale|guidance)"),
          ("The CFG scale says how strictly the picture follows the prompt. 7 is the default; lower is freer, "
           "higher is stricter and "
           "in the end harsh.",)),
    Topic("seed", ("what (is|does|are) (a|the) (seed|seeds)(| do| mean| for)", "what (is|are) (a |)seed(|s)",
                   "how (do i|can i|to) (get|make|repeat|reproduce) the same (picture|image)(| again| twice)",
                   f"{HOW} (change|set|choose|use|keep) (the|a) seed", "explain (the |)(seed|seeds)",
                   "why do i (always |)get (a different|another|the same) picture", "is (it|the picture) "
                                                            "(repeatable|reproducible|deterministic)"),
          ("The seed starts the noise. The same prompt, settings and seed make the same picture, byte for byte; -1 "
           "draws a new "
           "seed each time. The seed of every picture is kept in the history.",)),
    Topic("negative prompt", ("what (is|does|are) (a|the) negative prompt(s|)(| do| mean| for)",
                              f"{HOW} (use|write|set|add) (a|the) negative prompt", "(explain|tell me about) (the |"
                                                            ")negative prompt(s|)",
                              f"{HOW} (avoid|leave out|exclude|remove) (things|something|colours|a thing)(| from "
                              f"the picture)"),
          ("The negative prompt says what the picture should not show. Write the words into its field, without "
           "\"no\" or \"not\".",)),
    Topic("crash", ("what (happens|is|if|happens if|happens when) (when |if |)(a|the|one|my) (worker|model|gpu|"
                    "driver|process|image worker|"
                    "language model|llm worker) (crashes|dies|crashed|fails|hangs|is killed|stops|breaks)",
                    "what happens (in|at|after|on) a crash", "(does|can) (it|mysti|the studio|the server|this) "
                                                            "(crash|fail|go down|hang)",
                    "(is|are) my (picture|pictures|work|prompt|job|jobs|image|answer) (lost|gone|safe)(| when it "
                    "crashes| after a crash| if it crashes)",
                    "what (if|about) (a crash|crashes|it crashes|something crashes|something goes wrong|the power "
                    "fails)",
                    "how (safe|reliable|stable|robust) is (it|mysti|this|the studio)", f"why (does|can) {MYSTI} not "
                                                            f"(crash|go down)",
                    "what do i do (when|if|after) (it|something|a worker) (crashes|crashed)",
                    "why did (the worker|it|the model) crash", "do i lose (anything|my work|my picture) (if|when) "
                                                            "(it|a worker|the gpu) crashes"),
          ("A crash costs you a pause, nothing else. The worker is started again at once with its model, the "
           "picture goes on from its "
           "last step, and a text goes on in mid-sentence. The page says what happened.",)),
    Topic("safe mode", ("what (is|does) (the |)safe mode(| mean| do)", "why (is|am) (it|the worker|i|mysti) in safe "
                                                            "mode",
                        "how do i (leave|get out of|exit|end) (the |)safe mode", "explain (the |)safe mode"),
          ("After five crashes in a minute a worker runs in safe mode, without a model, so that it cannot crash "
           "again. Load another "
           "model or press Retry to leave it.",)),
    Topic("who made you", ("who (made|built|wrote|created|trained|programmed|developed|invented) (you|this|mysti|"
                           "this model|this program|the demo model|"
                           "the studio)", "who (is|are) (your|the) (author|authors|maker|makers|creator|creators|"
                                          "developer|developers|owner)",
                           "where (do you come|are you) from", "how were you (made|trained|built|created)",
                           "(what|which) (data|texts|text) (were|are) you trained (on|with)", "what is your "
                                                            "training data"),
          ("The Mysti project trained me itself, on text made by its own small programs in demo/llm. No one else's "
           "data or "
           "weights are in me.",)),
    Topic("licence", ("(what|which) (is |)(the |your |)(licence|license)(| do you have| of this model| is it| "
                      "applies| are you under)",
                      "(under |)(what|which) (licence|license) (are you|is this|is mysti|is the model|do you have)(|"
                      " published| under)",
                      "(is it|are you|is mysti|is this) (free|open source|open|free software|commercial)",
                      "(may|can) i (use|sell|share|publish|copy) (you|this|mysti|the pictures|my pictures|the model|"
                      "the models|it)"
                      "(| commercially| freely| for free)", "how much (does it|do you|does mysti) cost", "what does "
                                                            "(it|mysti) cost",
                      "who owns (the|my) (pictures|images)", "tell me (the|your) (licence|license)"),
          ("Mysti is free software under the MIT licence. The demo models, me included, are CC0: use them for "
           "anything, no "
           "conditions. Your pictures are yours.",)),
    Topic("gpu", ("do i need a (gpu|graphics card|video card|strong computer|fast computer|nvidia card)",
                  "(does it|can it|does mysti|can mysti|will it) (run|work) (on|with|without) (a |my |an |)(gpu|cpu|"
                  "graphics card|nvidia|amd|laptop|"
                  "old computer|radeon|cuda|vulkan)", f"{HOW} (use|enable|turn on) (my |the |a |)(gpu|graphics card|"
                                                      f"cuda|vulkan|hip)",
                  "(is|are) (cuda|vulkan|hip|rocm|gpus|amd|nvidia) (supported|possible|used)",
                  "what (hardware|computer|machine) do i need", "what are the (system |hardware |)requirements"),
          ("A CPU is enough for the demo models; bigger models want a GPU. Build with MYSTI_CUDA=1, MYSTI_VULKAN=1 "
           "or MYSTI_HIP=1 "
           "before scripts/run.sh to use one.",)),
    Topic("offline", ("do (you|i) need (the |an |)(internet|network|connection|internet connection)",
                      "(does it|can it|does mysti|do you) (work|run) (offline|without internet|without the internet|"
                      "locally)",
                      "(is|are) my (data|prompts|pictures|images|words) (private|sent anywhere|uploaded|sent to a "
                      "server|shared)",
                      "(do|does) (you|it|mysti) (send|share|upload|collect) (my |any |)(data|prompts|pictures)",
                      "(who|can anyone|can anybody|can others) (sees|see) my (prompts|pictures|images)", "what "
                                                            "about (privacy|my data)",
                      "is (this|it|mysti) (local|private|in the cloud|online)"),
          ("Everything runs on your own computer; once built, Mysti needs no internet, and nothing you type or make "
           "leaves the "
           "machine.",)),
    Topic("api", ("(is there|do you have|does it have|does mysti have|what is|where is) (an|the) api",
                  f"{HOW} (use|call|reach|script|control|automate) (mysti|the studio|the api|it|this) (from|with|"
                  f"in) (a program|python|a script|curl|code|"
                  "javascript|openai|my program)", "(is it|are you|is mysti|is the api) (openai compatible|"
                                                   "compatible with openai)",
                  "can i use (the |)(openai|api|openai client|openai library)", f"{HOW} use the api",
                  "(which|what) (routes|endpoints) (are there|does the api have)"),
          ("Yes: OpenAI's routes under http://localhost:1234/v1, such as images/generations and chat/completions, "
           "and Mysti's own for "
           "jobs, models, events and history. docs/api.md lists all of them.",)),
    Topic("saved", ("where (are|is|do|does) (my |the |)(pictures|images|picture|image|files|results|output) (saved|"
                    "stored|go|kept|written)",
                    f"{HOW} (find|save|download|see|get|export|open) (my |the |)(pictures|images|old pictures|"
                    f"picture|image|results)",
                    "(is there|where is|what is) (a|the) (history|gallery)", f"{HOW} (delete|remove|search) "
                                                            f"(pictures|images|a picture|an image|my history)",
                    "(do you|does it|does mysti) (save|keep) (my |the |)(pictures|images|prompts)"),
          ("Every finished picture is written into the outputs folder and listed in the history on the page, with "
           "its prompt, seed and "
           "settings. There you can search, reuse, download and delete.",)),
    Topic("wand", ("what (is|does) (the |a |)(magic wand|wand)(| do| for)", f"{HOW} (use|start|stop|undo) the "
                                                            f"(magic wand|wand)",
                   "(explain|tell me about) the (magic wand|wand)", "how does the (magic wand|wand) work",
                   f"{HOW} (improve|enhance|enrich) (a|my|the) (prompt|prompts)", "can you (improve|enhance|enrich|"
                                                            "rewrite) (my |a |)(prompt|prompts)"),
          ("The Magic Wand beside the prompt field lets the language model make your prompt richer, word by word. "
           "Alt+W casts it, Escape "
           "stops it, Undo brings your words back.",)),
    Topic("port", ("(which|what) (port|address|url) (do you|does it|does mysti|is it|is mysti|should i|does the "
                   "studio) (use|run on|listen on|have|on|open|need)",
                   f"{HOW} (change|set|choose) the (port|address)", "(the|a|my) port is (taken|used|in use|busy)",
                   f"{HOW} (reach|open|use|see) (it|mysti|the studio|this) (from|on) (another|a different|other|my "
                   f"other) (computer|machine|phone|device)",
                   "where (is|do i find) the page"),
          ("The studio is at http://localhost:1234; its workers take the next two ports. --listen-port chooses "
           "another. To be reached from "
           "other machines: --listen-ip 0.0.0.0 --api-key KEY.",)),
    Topic("image to image", ("what is (image to image|img2img|strength|denoising strength)", f"{HOW} (use|do|make|"
                                                            f"start) (image to image|img2img)",
                             f"{HOW} (change|edit|vary|start from|use) (a|an|my) (existing |own |old |)(picture|"
                             f"image|photo)",
                             "can (you|it|i) (change|edit|vary) (a|an|my) (existing |)(picture|image|photo)",
                             "(does it|can you|can it) (do|support) (image to image|img2img|inpainting)"),
          ("Image to image starts from a picture of yours: drop it on the page or take one from the history. "
           "Strength says how far "
           "it may go away from it: 0 keeps it, 1 forgets it, 0.75 is the default.",)),
    Topic("weights", (f"{HOW} (weight|stress|emphasize|emphasise|weaken|strengthen) (words|a word|parts|a part)(| "
                      f"in a prompt| of a prompt| of the prompt)",
                      "what (are|is|do) (the |)(prompt weights|weights|brackets|parentheses|attention syntax|prompt "
                      "syntax)(| mean| for)",
                      "what does \\(word:1.2\\) mean", f"{HOW} use (prompt weights|brackets|parentheses|weights)",
                      "which prompt syntax (is there|do you support|is supported)"),
          ("Write (word:1.3) to stress a word and (word:0.7) to weaken it; (word) is 1.1 and [word] is 0.9. With "
           "the words selected, Ctrl+Up "
           "and Ctrl+Down do it for you.",)),
    Topic("how big", ("how (big|large|small) are you", "how many (parameters|weights|layers|tokens) (do you have|"
                                                       "are you|have you|are in you)",
                      "what (size|context|context length) (are you|do you have|is your context)", "how (much|many) "
                                                            "(memory|text|words) can you (read|take|remember)",
                      "why are you so (small|simple|dumb|stupid|limited|tiny)", "what is your (size|architecture|"
                                                            "context|context length|vocabulary)"),
          ("I have about two million parameters, a thousand times fewer than the language models people chat with, "
           "and a context of 512 "
           "tokens. That is enough for prompts and a few questions.",)),
    Topic("memory", (f"{HOW} (free|save|release) (memory|ram|vram|gpu memory)", f"{HOW} unload (a|the) (model|"
                                                            f"models|language model|image model)",
                     "(i am|it is|the gpu is) out of memory", "(it says|i get) out of memory", "how much (memory|"
                                                            "ram|vram) (do i need|does it need|is needed|do you need)",
                     "(not enough|too little) memory"),
          ("Unload the model that you don't need on the Models page, or let it go by itself with --llm-idle-timeout "
           "300. --n-gpu-layers puts "
           "fewer layers of the language model on the GPU.",)),
    Topic("speed", ("how (long|fast) (does it take|is it|does a picture take|are you|is mysti|is the demo model|"
                    "will it take)",
                    f"{HOW} make it (faster|quicker)", "why is (it|this|mysti|the picture) (so |)slow",
                    "how (long|much time) does (one|a|the) (picture|image) (take|need)"),
          ("A picture of the demo model takes a few seconds on two CPU cores. Fewer steps and a smaller size are "
           "faster; for big models a "
           "GPU makes the difference.",)),
    Topic("language", ("(which|what) languages (do you|can you) (speak|know|understand|write)", "do you (speak|know|"
                                                            "understand) (german|french|english|spanish|"
                       "chinese|italian|japanese|russian|deutsch|other languages)", "(sprichst du deutsch|"
                                                            "parlez-vous français|habla español)",
                       "can (i|you) (write|talk|speak) (in |)(german|french|spanish|another language)"),
          ("I know English only, and little of it: the words of picture prompts and of the studio. A bigger "
           "language model speaks more.",)),
    Topic("tips", ("how (do i|can i|should i|to) write (a |)(good|better|great|nice) (prompt|prompts)", "what (is|"
                                                            "makes) a good prompt",
                   "(give|tell) me (some |)(tips|advice|hints)(| for prompts| for a good prompt| please)", "what "
                                                            "should a prompt (contain|say|look like)",
                   "(do you have|any) (tips|hints|ideas)(| for prompts| for me)"),
          ("Say what is there, its colour, size and place, then the background, then the style. Example: \"a large "
           "green star on the left, "
           "white background, watercolor painting\".",)),
    Topic("cancel", (f"{HOW} (cancel|stop|abort|end|interrupt) (a|the|my|this) (picture|job|image|generation|run)",
    f"{HOW} (see|use|clear) the queue",
                     "(is there|what is|how long is|how does) (a|the) (queue|waiting list)(| work)", "can i (queue|"
                                                            "make|start) (several|many|more) (pictures|jobs|"
                                                            "images)(| at once)"),
          ("Pictures wait in a queue and are made one after the other; up to 256 can wait. Escape stops the current "
           "one, and each job has a "
           "cancel button.",)),
    Topic("built with", ("(what|which) (language|programming language|libraries|library) (is|are) (mysti|you|this|"
                         "it) (written|made|built|programmed) (in|with)",
                         "how (is|does) (mysti|it|this|the studio) (built|work|made|work inside|structured)", "what "
                                                            "is under the hood",
                         "(what|which) (libraries|engine|backend) (do you|does it|does mysti) use", "where is the "
                                                            "(source|source code|code)"),
          ("Mysti is written in C: a server that owns your work and two workers, one for images on ggml, one for "
           "text on llama.cpp. The page is "
           "Vue. ARCHITECTURE.md is the tour of the code.",)),
    Topic("start", (f"{HOW} (start|run|install|launch|build|set up|update) (mysti|the studio|it|this|this "
                    f"program)", "how do i (begin|get started|start)(| here)",
                    "what do i (do|need) (first|to start|to begin)", f"{HOW} (make|create|generate|draw) (a|my "
                                                            f"first|the first|an|my) (picture|image)",
                    "where do i (begin|start|click)"),
          ("Run scripts/run.sh: it builds what is missing and starts the studio at http://localhost:1234. Type a "
           "prompt there and press "
           "Generate; the picture comes step by step.",)),
)

FALLBACKS = (
    "Sorry, that is beyond me: I am a small demo model. I can make a picture prompt richer and answer questions "
    "about this studio. "
    "For more, load a bigger language model on the Models page.",
    "I don't know that. I am only the demo writer: I make short picture prompts richer and know a little about this "
    "studio. "
    "Ask me, for example, which samplers there are.",
)

_GROUP = re.compile(r"(?<!\\)\(([^()]*?)(?<!\\)\)")


def expand(pattern):
    """Every wording that a pattern stands for, each once."""
    inner = _GROUP.search(pattern)
    if not inner:
        return [pattern.replace("\\", "")]
    chosen = (pattern[:inner.start()] + choice + pattern[inner.end():] for choice in inner.group(1).split("|"))
    return list(dict.fromkeys(w for one in chosen for w in expand(one)))


def is_held_out(wording):
    """Whether the evaluation has this wording to itself."""
    return zlib.crc32(wording.encode()) % 10 == 0


def wordings(topic):
    """All wordings of a topic, in one order, each once."""
    return list(dict.fromkeys(w for pattern in topic.wordings for w in expand(pattern)))
