// make_models.mjs - makes the tiny models before the first test that wants them: several start at once.
import { tinyModels } from './studio.mjs'

tinyModels()
