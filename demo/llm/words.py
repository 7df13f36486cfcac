"""Word lists for prompts that the demo models know nothing about: they teach the language model to keep any words."""

NOUNS = tuple("""
cat dog horse bird fish cow sheep pig fox wolf bear lion tiger elephant mouse rabbit owl eagle duck chicken frog
snake bee butterfly spider dragon unicorn whale dolphin shark monkey deer goat camel penguin turtle man woman boy
girl child baby king queen prince princess knight wizard witch pirate robot astronaut soldier doctor teacher farmer
dancer singer painter cook clown ghost monster angel alien vampire mat table chair bed sofa lamp door window wall
floor roof kitchen room garden street city town village castle tower bridge church temple school library shop
market harbour airport station road path river lake ocean island beach desert forest jungle mountain valley field
meadow farm cave waterfall volcano sky cloud rain snow storm lightning rainbow star planet galaxy space rocket
spaceship car truck bus train bicycle motorcycle plane ship submarine balloon flower rose tulip sunflower grass
leaf bush mushroom apple banana orange lemon cherry strawberry grape bread cheese cake pizza soup egg coffee tea
wine bottle glass cup plate bowl spoon knife fork book letter pen pencil paper map clock watch phone computer
camera guitar piano violin drum trumpet ball toy doll hat coat dress shoe glove ring crown sword shield key lock
box bag umbrella candle fire smoke ice stone rock sand gold silver iron wood metal cloth mirror picture painting
statue fountain flag ladder wheel engine machine building skyscraper lighthouse windmill tent barn fence gate
garage face eye hand hair portrait landscape photo drawing sketch logo icon poster scene view sunrise morning
evening afternoon summer winter spring autumn cube sphere pyramid cylinder line pattern shape rectangle hexagon
diamond spiral arrow letter number word
""".split())

ADJECTIVES = tuple("""
old young big small tall short long wide narrow thick thin heavy light dark bright happy sad angry tired sleepy
hungry brave shy clever beautiful ugly pretty cute strange magic golden silver wooden metal glass broken clean
dirty wet dry hot cold warm cool fast slow quiet loud empty full open closed soft hard smooth rough round square
flat deep high low rich poor new ancient modern medieval futuristic giant tiny little huge colorful grey violet
turquoise cyan magenta beige shiny foggy misty rainy snowy sunny stormy cloudy wild tame flying running sleeping
sitting standing dancing swimming burning frozen glowing floating hidden lonely mysterious elegant fluffy
""".split())

PREPOSITIONS = ("on", "in", "under", "above", "below", "behind", "beside", "near", "with", "without", "and", "at",
                "over", "through", "in front of", "next to", "between", "against", "of", "from", "holding",
                "wearing", "riding", "eating", "watching", "looking at", "sitting on", "standing in", "left of",
                "to the right of", "made of", "full of", "inside", "around")

STYLES = ("photograph", "photo", "oil painting", "digital art", "pencil sketch", "3d render", "pixel art", "anime",
          "cartoon", "concept art", "watercolor painting", "flat illustration", "black and white", "close-up",
          "portrait", "bokeh", "cinematic", "low poly", "line drawing with thick outlines", "vintage poster", "8k",
          "sharp focus", "wide angle", "fantasy art", "charcoal drawing")

COMMON = NOUNS + ADJECTIVES + tuple("""
a an the and or but with without of for from to into about after before during while because if then when where why
how who which what this that these those it its he she they we you i my your his her our their some any many few
more most all every each one two three four five six seven eight nine ten hundred thousand first second third last
next other another same very really almost always never often sometimes again still just only also not no yes is
are was were be been has have had do does did can could will would should may go goes going come comes coming make
makes made take takes taken give gives get gets see sees seen look looks find finds keep keeps let put puts say
says tell tells think know knows want wants need needs use uses work works play plays run runs walk walks stand
stands sit sits fly flies swim swims eat eats drink drinks sleep sleeps read reads write writes sing sings paint
paints draw draws build builds left right up down top bottom middle center side front back inside outside here
there near far away together alone day night time year week hour minute world people life house home family friend
name story music art color colour red blue green yellow purple pink brown black white orange circle triangle heart
cross background stripes dots gradient sun moon sea hills tree boat
""".split())

ONSETS = ("", "b", "br", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kl", "l", "m", "n", "p", "pr", "qu",
          "r", "s", "sh", "sk", "st", "t", "th", "tr", "v", "w", "x", "y", "z")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ee", "ou", "oo", "y", "io")
CODAS = ("", "", "", "b", "ck", "d", "f", "g", "l", "ll", "m", "n", "nd", "ng", "nt", "p", "r", "rk", "s", "ss",
         "st", "t", "x", "z")
FOREIGN = "äöüßéèêàçñåøæîôłšžćáíóúýđğıαβγδλπσωабвгдежзиклмнопрстуякошкаדבר日本語猫犬山水火木金土花鳥風月한국어€£°½²×→★♥☀😀🐱🚀—…«»“”"

QUESTION_WORDS = ("what", "who", "how", "why", "where", "when", "which", "can", "could", "is", "are", "do", "does",
                  "will", "may", "did", "am", "whose", "should", "would", "hello", "hi", "hey", "thanks", "bye",
                  "help", "under", "explain", "tell", "list", "show")

OFF_TOPIC = (
    "what is the capital of {name}", "what is a {noun}", "what is {word}", "who is {name}", "who was {name}",
    "who invented the {noun}", "where is {name}", "where do {noun}s live", "when was {name} born",
    "why is the {noun} {adjective}", "why are {noun}s {adjective}", "how many {noun}s are there in the world",
    "how old is {name}", "how old are you", "how do i cook {noun}", "how do i repair a {noun}",
    "how do i build a {noun}", "how tall is the {noun}", "how far is the {noun}", "what is {n} plus {m}",
    "what is {n} + {m}", "{n} * {m} =", "what is {n} times {m}", "calculate {n} minus {m}", "solve x + {n} = {m}",
    "tell me a joke", "tell me a story", "tell me a story about a {noun}", "tell me about {name}",
    "tell me something about {noun}s", "write a poem about a {noun}", "write a poem",
    "write a story about a {adjective} {noun}", "write a letter to {name}", "write an essay about {noun}s",
    "write a python program", "write code that sorts a list", "translate {word} into french",
    "translate {word} to german", "what does {word} mean", "define {word}", "what is the meaning of life",
    "what is the weather today", "what is the weather like in {name}", "what time is it", "what day is it",
    "what is the date today", "what year is it", "what is the news", "who is the president of {name}",
    "who won the game", "sing a song", "explain quantum physics", "explain the {noun}", "explain {word} to me",
    "what is your favourite {noun}", "what is your favourite colour", "do you like {noun}s", "do you like {name}",
    "do you love me", "do you dream", "are you {adjective}", "is {name} {adjective}", "is the {noun} {adjective}",
    "can {noun}s fly", "can you sing", "can you count to {n}", "can you write code", "can you play chess",
    "can you cook", "play a game with me", "i am {adjective}", "i am bored", "i feel {adjective}", "i love {noun}s",
    "my {noun} is {adjective}", "my name is {name}", "what is my name", "recommend a {noun}",
    "which {noun} is the best", "which {noun} should i buy", "how do i learn {word}", "how do i get to {name}",
    "how do i make money", "summarize this text", "count from {n} to {m}", "spell {word}", "is {n} a prime number",
    "give me a recipe for {noun}", "what rhymes with {word}", "compare {noun}s and {noun}s",
    "why do {noun}s {word}", "should i buy a {noun}", "what did {name} say", "who wrote {name}", "did {name} win",
    "will it rain tomorrow", "what happened in {n}", "convert {n} miles to km",
)
