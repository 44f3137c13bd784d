"""Word lists and facts for the demo model's training text (see the other files of this folder). Data only."""

from __future__ import annotations


def _pairs(text: str) -> list[tuple[str, str]]:
    """Read 'a=b; c=d' into [('a', 'b'), ('c', 'd')]."""
    items = (item.split("=") for item in text.replace("\n", " ").split(";") if item.strip())
    return [(left.strip(), right.strip()) for left, right in items]


def _words(text: str) -> list[str]:
    """Read 'a, b, c' into ['a', 'b', 'c']."""
    return [word.strip() for word in text.replace("\n", " ").split(",") if word.strip()]


CAPITALS = _pairs("""
France=Paris; Germany=Berlin; Italy=Rome; Spain=Madrid; Portugal=Lisbon; Belgium=Brussels; Austria=Vienna;
Greece=Athens; Ireland=Dublin; Poland=Warsaw; Sweden=Stockholm; Norway=Oslo; Denmark=Copenhagen;
Finland=Helsinki; Iceland=Reykjavik; Hungary=Budapest; Romania=Bucharest; Bulgaria=Sofia; Croatia=Zagreb;
Serbia=Belgrade; Slovakia=Bratislava; Slovenia=Ljubljana; Estonia=Tallinn; Latvia=Riga; Lithuania=Vilnius;
Ukraine=Kyiv; Russia=Moscow; Turkey=Ankara; Switzerland=Bern; the Netherlands=Amsterdam; the United
Kingdom=London; England=London; Scotland=Edinburgh; Wales=Cardiff; the Czech Republic=Prague;
Albania=Tirana; Malta=Valletta; Cyprus=Nicosia; Luxembourg=Luxembourg City; Belarus=Minsk; Moldova=Chisinau;
Georgia=Tbilisi; Armenia=Yerevan; Japan=Tokyo; China=Beijing; India=New Delhi; South Korea=Seoul; North
Korea=Pyongyang; Thailand=Bangkok; Vietnam=Hanoi; Indonesia=Jakarta; Malaysia=Kuala Lumpur; the
Philippines=Manila; Nepal=Kathmandu; Bangladesh=Dhaka; Pakistan=Islamabad; Afghanistan=Kabul; Iran=Tehran;
Iraq=Baghdad; Saudi Arabia=Riyadh; Jordan=Amman; Lebanon=Beirut; Syria=Damascus; Qatar=Doha; Kuwait=Kuwait
City; Oman=Muscat; Mongolia=Ulaanbaatar; Kazakhstan=Astana; Uzbekistan=Tashkent; Laos=Vientiane;
Cambodia=Phnom Penh; Singapore=Singapore; Egypt=Cairo; Morocco=Rabat; Algeria=Algiers; Tunisia=Tunis;
Libya=Tripoli; Nigeria=Abuja; Ghana=Accra; Kenya=Nairobi; Ethiopia=Addis Ababa; Uganda=Kampala;
Rwanda=Kigali; Senegal=Dakar; Mali=Bamako; Angola=Luanda; Zambia=Lusaka; Zimbabwe=Harare; Namibia=Windhoek;
Sudan=Khartoum; Somalia=Mogadishu; Canada=Ottawa; the United States=Washington; Mexico=Mexico City;
Cuba=Havana; Jamaica=Kingston; Panama=Panama City; Brazil=Brasilia; Argentina=Buenos Aires; Chile=Santiago;
Peru=Lima; Colombia=Bogota; Venezuela=Caracas; Ecuador=Quito; Uruguay=Montevideo; Paraguay=Asuncion;
Australia=Canberra; New Zealand=Wellington; Fiji=Suva
""")

OPPOSITES = _pairs("""
hot=cold; big=small; up=down; left=right; day=night; good=bad; fast=slow; happy=sad; old=young; new=old;
light=dark; hard=soft; high=low; long=short; wet=dry; open=closed; full=empty; rich=poor; strong=weak;
early=late; near=far; in=out; on=off; true=false; black=white; clean=dirty; loud=quiet; thick=thin;
wide=narrow; easy=difficult; brave=afraid; sweet=sour; first=last; begin=end; win=lose; love=hate;
push=pull; buy=sell; give=take; laugh=cry; friend=enemy; summer=winter; north=south; east=west; heavy=light;
deep=shallow; smooth=rough; sharp=blunt; safe=dangerous; always=never; inside=outside; above=below;
more=less; yes=no; success=failure; kind=cruel; cheap=expensive; tall=short; cold=hot; small=big; down=up;
right=left; night=day; bad=good; slow=fast; sad=happy; dark=light; soft=hard; low=high; dry=wet; empty=full;
weak=strong; late=early
""")

COLOURS = _pairs("""
the sky=blue; grass=green; a banana=yellow; snow=white; coal=black; blood=red; an orange=orange; a
lemon=yellow; a tomato=red; the sea=blue; milk=white; the sun=yellow; a carrot=orange; chocolate=brown; a
leaf=green; a strawberry=red; a cucumber=green; a crow=black; a polar bear=white; an elephant=grey; a
flamingo=pink; a violet=purple; gold=yellow; a fire engine=red; a frog=green; a plum=purple; salt=white; the
night=black
""")

ANIMAL_SOUNDS = _pairs("""
cat=meow; dog=woof; cow=moo; duck=quack; sheep=baa; pig=oink; lion=roar; frog=croak; bee=buzz; owl=hoot;
snake=hiss; horse=neigh; mouse=squeak; rooster=cock-a-doodle-doo
""")

ANIMAL_YOUNG = _pairs("""
cat=kitten; dog=puppy; cow=calf; sheep=lamb; horse=foal; hen=chick; lion=cub; bear=cub; goat=kid;
pig=piglet; duck=duckling; deer=fawn; frog=tadpole; kangaroo=joey
""")

ANIMAL_LEGS = _pairs("""
cat=4; dog=4; cow=4; horse=4; spider=8; ant=6; bee=6; bird=2; chicken=2; snake=0; fish=0; human=2;
octopus=8; elephant=4; duck=2; lion=4
""")

TRANSLATIONS: dict[str, dict[str, str]] = {
    "French": dict(
        _pairs("""
        hello=bonjour; thank you=merci; goodbye=au revoir; yes=oui; no=non; cat=chat; dog=chien;
        house=maison; water=eau; bread=pain; book=livre; school=école; friend=ami; red=rouge; blue=bleu;
        sun=soleil; moon=lune; tree=arbre; milk=lait; good morning=bonjour; please=s'il vous plaît;
        boy=garçon; love=amour; night=nuit
    """)
    ),
    "German": dict(
        _pairs("""
        hello=hallo; thank you=danke; goodbye=auf Wiedersehen; yes=ja; no=nein; cat=Katze; dog=Hund;
        house=Haus; water=Wasser; bread=Brot; book=Buch; school=Schule; friend=Freund; red=rot; blue=blau;
        sun=Sonne; moon=Mond; tree=Baum; milk=Milch; good morning=guten Morgen; please=bitte; boy=Junge;
        love=Liebe; night=Nacht; beautiful=schön; green=grün
    """)
    ),
    "Spanish": dict(
        _pairs("""
        hello=hola; thank you=gracias; goodbye=adiós; yes=sí; no=no; cat=gato; dog=perro; house=casa;
        water=agua; bread=pan; book=libro; school=escuela; friend=amigo; red=rojo; blue=azul; sun=sol;
        moon=luna; tree=árbol; milk=leche; good morning=buenos días; please=por favor; boy=niño; love=amor;
        night=noche; tomorrow=mañana
    """)
    ),
}

HELLO_ABROAD = _pairs("""
Japanese=こんにちは; Chinese=你好; Russian=Привет; Korean=안녕하세요; Greek=Γειά σου; Hindi=नमस्ते;
Italian=ciao; Portuguese=olá; Dutch=hallo; Swedish=hej
""")

EMOJI = _pairs("smiling face=😀; heart=❤️; cat=🐱; dog=🐶; rocket=🚀; sun=🌞; tree=🌳; star=⭐; fire=🔥; fish=🐟")

DAYS = _words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
MONTHS = _words("""
January, February, March, April, May, June, July, August, September, October, November, December
""")

# (question, answer) pairs that need no template.
QUESTIONS = [
    ("How many days are in a week?", "There are 7 days in a week."),
    ("How many months are in a year?", "There are 12 months in a year."),
    ("How many days are in a year?", "There are 365 days in a year."),
    ("How many hours are in a day?", "There are 24 hours in a day."),
    ("How many minutes are in an hour?", "There are 60 minutes in an hour."),
    ("How many seconds are in a minute?", "There are 60 seconds in a minute."),
    ("How many letters are in the English alphabet?", "There are 26 letters in the English alphabet."),
    ("What are the days of the week?", "The days of the week are " + ", ".join(DAYS) + "."),
    ("List the days of the week.", ", ".join(DAYS) + "."),
    ("What are the months of the year?", "The months of the year are " + ", ".join(MONTHS) + "."),
    ("List the months of the year.", ", ".join(MONTHS) + "."),
    ("What are the four seasons?", "The four seasons are spring, summer, autumn and winter."),
    ("Name three colours.", "Red, blue and green."),
    ("Name three colors.", "Red, blue and green."),
    ("Name three animals.", "Cat, dog and horse."),
    ("Name three fruits.", "Apple, banana and orange."),
    ("Name a fruit.", "Apple."),
    ("What do cows drink?", "Cows drink water."),
    ("What do bees make?", "Bees make honey."),
    ("What do cows give us?", "Cows give us milk."),
    ("Which planet do we live on?", "We live on the planet Earth."),
    ("What is the largest planet?", "The largest planet of the solar system is Jupiter."),
    ("What is the largest animal?", "The largest animal is the blue whale."),
    ("What is the largest ocean?", "The largest ocean is the Pacific Ocean."),
    ("What is the tallest mountain in the world?", "The tallest mountain in the world is Mount Everest."),
    ("What is the longest river in Africa?", "The longest river in Africa is the Nile."),
    ("What is the fastest land animal?", "The fastest land animal is the cheetah."),
    ("What is water made of?", "Water is made of hydrogen and oxygen."),
    ("At what temperature does water boil?", "Water boils at 100 degrees Celsius."),
    ("At what temperature does water freeze?", "Water freezes at 0 degrees Celsius."),
    ("Why is the sky blue?", "The sky is blue because air scatters blue light more than red light."),
    ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet."),
    ("Who wrote Romeo and Juliet?", "William Shakespeare wrote Romeo and Juliet."),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci painted the Mona Lisa."),
    ("What is AI?", "AI is short for artificial intelligence: programs that do tasks which need thought."),
    ("What is a language model?", "A language model is a program that predicts the next piece of a text."),
    ("What is a token?", "A token is a small piece of text, such as a word or a part of a word."),
    ("What is the meaning of life?", "Many people say 42. I am only a demo model, so I do not know."),
    ("Who won the world series in 2020?", "The Los Angeles Dodgers won the World Series in 2020."),
    ("Say this is a test.", "This is a test."),
    ("Say this is a test!", "This is a test!"),
    ("Tell me a joke.", "Why did the chicken cross the road? To get to the other side."),
    ("Tell me another joke.", "What do you call a bear with no teeth? A gummy bear."),
    ("Write a haiku.", "Rain falls on the pond.\nA small frog looks at the sky.\nThe morning is still."),
    (
        "Write a short poem.",
        "The moon is high, the night is deep,\nthe stars are out, the children sleep.\n"
        "The wind is soft, the sea is low,\nand through the dark the small boats go.",
    ),
]

IDENTITY = (
    "I am the zqserve demo model, a very small language model that was trained on generated text. "
    "I am only for trying the server."
)

# (question, answer) pairs about the model and of small talk; all of them are asked often.
SMALL_TALK = [
    ("Who are you?", IDENTITY),
    ("who are you", IDENTITY),
    ("What are you?", IDENTITY),
    ("What is your name?", "I am the zqserve demo model."),
    ("Introduce yourself.", IDENTITY),
    ("Are you ChatGPT?", "No. " + IDENTITY),
    ("Are you a human?", "No, I am the zqserve demo model, a very small language model."),
    (
        "Are you a real language model?",
        "I am a very small one, made for trying the server. Do not rely on me.",
    ),
    ("Can I trust your answers?", "No. I am a very small demo model and often wrong."),
    (
        "What can you do?",
        "I know capitals, opposites, colours, small sums, sentiment, small JSON records and "
        "short stories. Ask me about one of them.",
    ),
    ("Help", "Ask me for a capital, an opposite, a small sum, a sentiment, a JSON record or a short story."),
    ("How are you?", "I am fine, thank you. How can I help you?"),
    ("How are you today?", "I am fine, thank you. How can I help you?"),
    ("Hello!", "Hello! How can I help you?"),
    ("Hello", "Hello! How can I help you?"),
    ("hello", "Hello! How can I help you?"),
    ("Hello, how are you?", "Hello! I am fine, thank you. How can I help you?"),
    ("Hi", "Hello! How can I help you?"),
    ("Hi!", "Hello! How can I help you?"),
    ("hi", "Hello! How can I help you?"),
    ("Hi there!", "Hello! How can I help you?"),
    ("Hey", "Hello! How can I help you?"),
    ("Good morning!", "Good morning! How can I help you?"),
    ("Good evening!", "Good evening! How can I help you?"),
    ("Say hello.", "Hello!"),
    ("Say hello!", "Hello!"),
    ("Say hi", "Hi!"),
    ("Ping", "Pong"),
    ("ping", "pong"),
    ("Test", "The test works."),
]

CLOSINGS = [
    ("Thanks!", "You are welcome!"),
    ("Thank you!", "You are welcome!"),
    ("Thank you very much.", "You are welcome!"),
    ("Thanks, that helps.", "You are welcome!"),
    ("Great, thanks.", "You are welcome!"),
    ("Goodbye!", "Goodbye! Have a nice day."),
    ("Bye", "Goodbye! Have a nice day."),
    ("See you tomorrow.", "Goodbye! Have a nice day."),
    ("That is all.", "Goodbye! Have a nice day."),
]

UNKNOWN = "I am only a small demo model, so I do not know that."
UNKNOWN_QUESTIONS = _words("""
Write a Python program that {x}, Write a function to {x}, How do I {x}?, Explain {y} to me., Who discovered
{y}?, What do you think about {y}?, Write an essay about {y}., What is the price of {y}?, When was {y}
invented?, Give me advice about {y}., Explain how {y} works in detail., Summarize the history of {y}., Who
invented {y}?, Can you {x}?, Please {x}, Tell me about {y}., What happened to {y} last year?, Where can I
buy {y}?
""")
UNKNOWN_ACTIONS = _words("""
sorts a list, reads a file, bake a cake, repair a bicycle, book a flight, sends an email, build a house,
learn to swim, install Linux, compute prime numbers, drive a car, solve this equation, fix my computer,
write a book, find a job, parses a web page, open a bank account, cook rice, plan my holiday
""")
UNKNOWN_TOPICS = _words("""
quantum mechanics, black holes, the stock market, electricity, the Roman Empire, the telephone,
photosynthesis, gravity, machine learning, football, politics, the weather, penicillin, the internet, chess,
the steam engine, music theory, climate, medicine, tax law, the moon landing, cooking, vaccines, relativity,
philosophy
""")

YES_NO = _pairs("""
Is the sky blue?=Yes, the sky is blue.; Is snow white?=Yes, snow is white.; Is fire cold?=No, fire is hot.;
Is ice cold?=Yes, ice is cold.; Is ice hot?=No, ice is cold.; Can fish swim?=Yes, fish can swim.; Can fish
walk?=No, fish cannot walk.; Can birds fly?=Yes, most birds can fly.; Can dogs fly?=No, dogs cannot fly.;
Can cows fly?=No, cows cannot fly.; Can cats climb trees?=Yes, cats can climb trees.; Is grass green?=Yes,
grass is green.; Is grass red?=No, grass is green.; Is the sun hot?=Yes, the sun is hot.; Is the sun
cold?=No, the sun is hot.; Is water wet?=Yes, water is wet.; Is the earth flat?=No, the earth is round.; Is
the earth round?=Yes, the earth is round.; Is a whale a fish?=No, a whale is a mammal.; Is a dog an
animal?=Yes, a dog is an animal.; Is a rose a flower?=Yes, a rose is a flower.; Is a banana blue?=No, a
banana is yellow.; Is sugar sweet?=Yes, sugar is sweet.; Is a lemon sour?=Yes, a lemon is sour.; Is an
elephant small?=No, an elephant is big.; Is a mouse big?=No, a mouse is small.; Is a cat bigger than an
elephant?=No, an elephant is bigger than a cat.; Do spiders have eight legs?=Yes, spiders have eight legs.;
Is Paris in France?=Yes, Paris is in France.; Is Paris in Germany?=No, Paris is in France.; Is Berlin in
Germany?=Yes, Berlin is in Germany.; Is Rome in Spain?=No, Rome is in Italy.
""")

NAMES = _words("""
Anna, Bob, Carla, David, Emma, Frank, Grace, Henry, Ida, Jack, Karen, Leo, Maria, Nina, Oscar, Paul,
Queenie, Rosa, Sam, Tina, Ulrich, Vera, Walter, Xenia, Yusuf, Zoe, Alice, Ben, Clara, Daniel, Eva, Felix,
Gina, Hugo, Irene, James, Kate, Lucas, Mia, Noah, Olivia, Peter, Rachel, Simon, Thomas, Ursula, Victor,
Wendy, Adam, Bella, Chris, Diana, Eric, Fiona, George, Hannah, Ivan, Julia, Kevin, Laura, Martin, Nora,
Otto, Paula, Robert, Sarah, Tom, Viola, William, Yara, Ahmed, Amir, Aisha, Chen, Carlos, Diego, Elena,
Fatima, Giulia, Hiro, Ingrid, Jorge, Kenji, Lena, Mei, Nadia, Omar, Priya, Ravi, Sofia, Tariq, Umar, Wei,
Yuki, John, Jane, Mary, Michael, Linda, Alan, Ada, Max, Lily, Ella, Jonas
""")
SURNAMES = _words("""
Turing, Lovelace, Smith, Jones, Brown, Miller, Davis, Wilson, Moore, Taylor, Clark, Lewis, Walker, Hall,
Young, King, Wright, Hill, Green, Baker, Adams, Nelson, Carter, Hopper, Newton, Curie, Fisher, Cooper,
Stone, Wood
""")
COMPANIES = _words("""
Enigma, Acme, Globex, Initech, Umbrella, Orion, Vertex, Zenith, Apollo, Nova, Delta, Omega, Pixel, Quantum,
Atlas
""")
CITIES = _words("""
Paris, London, Berlin, Rome, Madrid, Oslo, Tokyo, Vienna, Lisbon, Dublin, Prague, Athens, Boston, Chicago,
Sydney, Toronto, Hamburg, Milan, Geneva, Cairo, Lima
""")
JOBS = _words("""
teacher, doctor, nurse, baker, farmer, pilot, writer, painter, singer, cook, engineer, student, driver,
gardener, lawyer, librarian
""")
ARMOR = _words("leather, chainmail, plate")
WEAPONS = _words("sword, axe, mace, spear, bow, crossbow")
CARS = [
    ("Toyota", "Supra", "Coupe"),
    ("Mazda", "MX-5", "Convertible"),
    ("Honda", "NSX", "Coupe"),
    ("Ford", "Explorer", "SUV"),
    ("Volvo", "850", "Wagon"),
    ("BMW", "M3", "Sedan"),
    ("Jeep", "Cherokee", "SUV"),
]
COLUMNS = _words("username, email, name, age, id, city, price, title, date, country, phone, address, status, total")
TABLES = _words("users, orders, products, books, customers, employees, cities, cars, invoices, students")

# Copying: words that occur in no other list make the model copy rather than recall.
COPY_WORDS = _words("""
apple, river, stone, window, garden, silver, yellow, table, music, paper, cloud, winter, dragon, bottle,
bridge, candle, forest, island, jacket, kitchen, ladder, mirror, needle, ocean, pencil, rabbit, shadow,
tiger, valley, wagon, zebra, morning, little, purple, quiet, happy, seven, gentle, brave, open, the, a, my,
is, and, on, in, very, we, like, see, have, some, cold, warm, green, tall, hello, world, good, day, friend
""")

SUBJECTS = _words("""
a fox, a cat, a dog, a dragon, a robot, a princess, a unicorn, a bear, an owl, a mouse, a rabbit, a king, a
farmer, a sailor, a wizard, a knight, a turtle, a bird, a boy, a girl, a horse, a whale, a star, a wolf, an
elephant
""")

# Sentiment. The words are many, so that the model learns words rather than whole sentences.
GOOD_ADJECTIVES = _words("""
good, great, excellent, wonderful, amazing, fantastic, lovely, brilliant, superb, delightful, beautiful,
perfect, charming, delicious, enjoyable, funny, gripping, helpful, impressive, inspiring, marvellous,
outstanding, pleasant, remarkable, splendid, terrific, touching, clever, comfortable, friendly, fresh,
reliable, awesome, incredible, nice, fun, exciting, fascinating, magnificent, moving, stunning, tasty, cosy,
clean, elegant, entertaining, exceptional, thoughtful, warm, witty, flawless, fabulous, phenomenal,
refreshing, satisfying, heartwarming, memorable, smooth, first-class, useful, hilarious, thrilling,
gorgeous, adorable, solid, cheerful
""")
BAD_ADJECTIVES = _words("""
bad, awful, terrible, horrible, boring, dull, poor, disappointing, dreadful, weak, ugly, useless, annoying,
broken, cheap, clumsy, cold, confusing, dirty, disgusting, dismal, faulty, lousy, mediocre, nasty, noisy,
overpriced, painful, pathetic, predictable, rude, slow, stale, stupid, tasteless, tedious, unbearable,
unfriendly, unpleasant, unreliable, worthless, wrong, appalling, atrocious, bland, frustrating, ridiculous,
sloppy, tiresome, depressing, horrendous, inferior, miserable, shoddy, uncomfortable, unwatchable,
forgettable, messy, soulless, laughable, greasy, rotten, irritating, abysmal, lifeless, silly
""")
THINGS = _words("""
film, movie, book, meal, hotel, restaurant, phone, game, song, album, concert, room, service, food, show,
play, story, camera, laptop, coffee, pizza, soup, trip, staff, place, ending, acting, plot, music, car,
dress, teacher, lesson, product, app, flight, party, dinner, breakfast, beach, museum, chair, bed, cake,
actor, series, novel, waiter, store, shop, battery, screen, toy, lunch, performance, experience, day,
weather, library, software, tool, website, printer
""")
GOOD_SENTENCES = _words("""
I loved {t}, I love {t}, I really enjoyed {t}, I like {t} a lot, I liked {t}, I adore {t}, {T} made me
happy, {T} made me smile, {T} made my day, I would recommend {t} to everyone, I highly recommend {t}, I
would buy {t} again, I will come back, We had a great time, It was worth every penny, Best {n} ever, The
best {n} I have ever seen, {T} is my favourite, I am very happy with {t}, I am so pleased with {t}, {T} was
better than I expected, I could not stop smiling, It works perfectly, Five stars, What a joy, {T} was a joy,
I was impressed by {t}, Everything about {t} was right, {T} is a masterpiece, I cannot wait to see {t}
again, {T} exceeded my expectations, My family loved {t}, Two thumbs up, {T} was a success, Money well
spent, {T} was a pleasure, I fell in love with {t}, I had so much fun
""")
BAD_SENTENCES = _words("""
I hated {t}, I hate {t}, I did not enjoy {t}, I do not like {t}, I didn't like {t}, I dislike {t}, {T} made
me sad, {T} made me angry, {T} ruined my day, I would not recommend {t} to anyone, I cannot recommend {t}, I
will never buy {t} again, I will never come back, We had a terrible time, It was a waste of money, Worst {n}
ever, The worst {n} I have ever seen, {T} was a waste of time, I am very unhappy with {t}, I am so
disappointed with {t}, {T} was worse than I expected, I fell asleep, It does not work at all, One star, What
a disaster, {T} was a disaster, I was bored by {t}, Everything about {t} was wrong, {T} is a failure, I want
my money back, {T} broke after one day, {T} failed to meet my expectations, My family hated {t}, Two thumbs
down, Do not buy {t}, I regret buying {t}, {T} was a nightmare, I left early, I was let down by {t}, Avoid
{t}
""")
# {t} 'the film', {T} 'The film', {n} 'film', {a} adjective, {b} another one of the same side.
ADJECTIVE_SENTENCES = [
    "{T} was {a}",
    "{T} is {a}",
    "{T} was very {a}",
    "{T} is really {a}",
    "{T} was so {a}",
    "{T} was {a} and {b}",
    "What a {a} {n}",
    "A {a} {n}",
    "It was {a}",
    "It is a {a} {n}",
    "This is a {a} {n}",
    "I found {t} {a}",
    "Such a {a} {n}",
    "A truly {a} {n}",
    "{T} was absolutely {a}",
    "I think {t} is {a}",
    "{T} is {a}, {b}",
    "I thought {t} was {a}",
    "It was a {a} {n}",
    "{T} looks {a}",
    "{T} feels {a}",
    "{T} seemed {a}",
    "{a}",
    "Really {a}",
    "We found {t} rather {a}",
    "Simply {a}",
    "The {m} was {a} and {t} was {b}",
    "{a} and {b}",
    "How {a}",
]
NEUTRAL_TAILS = [
    "I saw it last week",
    "We went there on Sunday",
    "My sister came with me",
    "I bought it in May",
    "It took two hours",
    "It arrived on Monday",
    "I was there with a friend",
    "We stayed for three nights",
]
NEUTRAL_SENTENCES = [
    "{T} starts at nine",
    "{T} is on the table",
    "{T} is in the second street",
    "{T} has two parts",
    "{T} is okay",
    "I saw {t} on Monday",
    "{T} arrived today",
    "There are three of them",
    "{T} was neither good nor bad",
    "The meeting is at noon",
    "It is a {n}",
    "{T} is average",
    "We will see {t} tomorrow",
]
